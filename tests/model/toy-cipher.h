/* qcow2ext: a cipher for the tests of the engine.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * It takes the place of the filter's (cipher.h) behind its encrypting store.
 * It is no secret, but quick, and what matters here is as with CBC: all bytes
 * of a sector depend on those before, and on the sector's number; zeros are
 * not decrypted to zeros.
 */

#ifndef TOY_CIPHER_H
#define TOY_CIPHER_H

#include <stddef.h>
#include <stdint.h>

#include "base/store.h"

/* Whole sectors in place, the first of which lies at offset (bytes). */
void toy_encrypt (uint8_t *sectors, size_t bytes, uint64_t offset);
void toy_decrypt (uint8_t *sectors, size_t bytes, uint64_t offset);

/* An image_env.open_encrypted, which looks at no header. */
int toy_open_encrypted (void *opaque, struct store *of, uint64_t offset,
                        uint64_t length, struct store *clusters,
                        struct store **store);

#endif /* TOY_CIPHER_H */
