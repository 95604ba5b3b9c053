/* qcow2ext: how much memory the caches of an image may take.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_CACHE_SHARE_H
#define QCOW2EXT_CACHE_SHARE_H

#include <stddef.h>

/* Bytes. */
struct cache_share {
  size_t l2, decoded;
};

/* Takes a share for an export that is opened, to be given back when it is
 * closed.  All exports of a single image have what the command line says, each;
 * those of a directory share it.
 */
struct cache_share cache_share_take (void);
void cache_share_return (struct cache_share *share);

#endif /* QCOW2EXT_CACHE_SHARE_H */
