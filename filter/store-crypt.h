/* qcow2ext: a store over one that holds ciphertext.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_CRYPT_H
#define QCOW2EXT_STORE_CRYPT_H

#include "base/store.h"
#include "cipher.h"

/* Makes a store through which plain text is read from and written to inner,
 * where each sector of 512 bytes is encrypted according to its offset.  What
 * has never been written, or was discarded, does not read as zeros but as
 * noise (store->encrypted).
 *
 * Takes the cipher, even if this fails, but not inner, which must be closed
 * after it.  Returns NULL with errno set.
 */
struct store *store_crypt_new (struct store *inner, struct cipher *cipher);

#endif /* QCOW2EXT_STORE_CRYPT_H */
