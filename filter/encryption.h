/* qcow2ext: encrypted images.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_ENCRYPTION_H
#define QCOW2EXT_ENCRYPTION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/store.h"

/* Sets the pass phrase of all encrypted images, once, before there are
 * threads.  Takes it (from malloc), and wipes what it was given.  Returns 0 or
 * -1 (reported).
 */
int encryption_set_passphrase (char *passphrase);
bool encryption_has_passphrase (void);

/* An image_env.open_encrypted.  The LUKS header and its key slots are
 * the length bytes at offset of "file".  *result is a store in front of
 * clusters, which lets what is in them be read and written; clusters still
 * belongs to the caller, and is closed after it.
 *
 * The first time that a header is seen this takes seconds of CPU time; others
 * wait for it only with the same header.  Returns 0 or a negative errno
 * (reported).
 */
int encryption_open (void *opaque, struct store *file, uint64_t offset,
                     uint64_t length, struct store *clusters,
                     struct store **result);

/* Locks what is secret in the memory of a new process. */
void encryption_after_fork (void);

/* Forgets the pass phrase and all keys. */
void encryption_unload (void);

#endif /* QCOW2EXT_ENCRYPTION_H */
