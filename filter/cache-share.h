/* qcow2ext: how much memory the tables of an image may take.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_CACHE_SHARE_H
#define QCOW2EXT_CACHE_SHARE_H

#include <stddef.h>

/* Takes a share of the memory for L2 tables, in bytes, for an export that is
 * opened, to be given back when it is closed.  All exports of a single image
 * have what the command line says, each; those of a directory share it.
 */
size_t cache_share_take (void);
void cache_share_return (size_t share);

#endif /* QCOW2EXT_CACHE_SHARE_H */
