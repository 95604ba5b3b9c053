/* qcow2ext: libgcrypt, if it is needed.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Only encrypted images need it.  So it is not linked with but loaded when a
 * pass phrase is given, and called through this table.
 *
 * Of the libraries that have AES, XTS and PBKDF2 this one was the fastest on
 * sectors of 512 bytes when it was chosen; docs/performance.md has the figures.
 */

#ifndef QCOW2EXT_LOAD_GCRYPT_H
#define QCOW2EXT_LOAD_GCRYPT_H

#include <gcrypt.h>

#define LIBGCRYPT_FUNCTIONS(f)                                          \
  f (check_version) f (cipher_close) f (cipher_decrypt)                 \
  f (cipher_encrypt) f (cipher_open) f (cipher_setiv)                   \
  f (cipher_setkey) f (control) f (kdf_derive) f (md_hash_buffer)       \
  f (strerror)

struct libgcrypt {
#define POINTER(name) __typeof__ (gcry_##name) *name;
  LIBGCRYPT_FUNCTIONS (POINTER)
#undef POINTER
};

extern struct libgcrypt libgcrypt;

/* Fills in the table; before there are threads.  Returns 0, or -1 (reported)
 * if the library is not there or is too old.
 */
int load_libgcrypt (void);

/* Locks its memory for keys again, since a lock does not survive a fork.
 * While nobody uses it.
 */
void relock_libgcrypt (void);

#endif /* QCOW2EXT_LOAD_GCRYPT_H */
