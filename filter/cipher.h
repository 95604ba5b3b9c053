/* qcow2ext: the ciphers and hashes of LUKS.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The only place that calls the library for them, which load_libgcrypt has
 * loaded before.  Functions return 0 or a negative errno.
 */

#ifndef QCOW2EXT_CIPHER_H
#define QCOW2EXT_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/luks-header.h"

#define CIPHER_MAX_HASH_BYTES 64

/* One key, for any number of threads. */
struct cipher;

/* Makes the cipher that the header names from a key of h->key_bytes bytes,
 * which is copied.  Returns NULL (reported) if the library refuses.
 */
struct cipher *cipher_new (const struct luks_header *h, const uint8_t *key);
void cipher_free (struct cipher *c);

/* Encrypts or decrypts whole sectors, of which the first one has the given
 * number.  out may be in.  May wait for other threads that do the same, but
 * for no I/O.
 */
int cipher_encrypt (struct cipher *c, void *out, const void *in, size_t bytes,
                    uint64_t sector);
int cipher_decrypt (struct cipher *c, void *out, const void *in, size_t bytes,
                    uint64_t sector);

size_t hash_bytes (enum luks_hash hash);
void hash_run (enum luks_hash hash, uint8_t *out, const void *in,
               size_t bytes);

/* PBKDF2 (RFC 8018) with HMAC of the hash. */
int pbkdf2 (enum luks_hash hash, const void *passphrase, size_t length,
            const uint8_t salt[LUKS_SALT_BYTES], uint32_t iterations,
            uint8_t *out, size_t bytes);

#endif /* QCOW2EXT_CIPHER_H */
