/* qcow2ext: the volume key of LUKS version 1.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_LUKS_KEY_H
#define QCOW2EXT_LUKS_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "base/store.h"
#include "disk/luks-header.h"

/* An image that needs more than this to be opened is refused: a server must
 * not hang in its start for what an image claims.
 */
#define LUKS_MAX_SECONDS 60

/* Finds the volume key: h->key_bytes bytes.  offset is where the header h
 * lies in the store, in bytes.  This takes seconds of CPU time and reads the
 * key slots; it holds no lock.
 *
 * Returns 0 or a negative errno (reported); -EACCES: the pass phrase opens no
 * key slot; -E2BIG: it would take too long.
 */
int luks_find_key (struct store *store, uint64_t offset,
                   const struct luks_header *h, const char *passphrase,
                   uint8_t *key);

#endif /* QCOW2EXT_LUKS_KEY_H */
