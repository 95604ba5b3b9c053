/* qcow2ext: memory for keys and pass phrases.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * It is not swapped out, as far as the limit on locked memory goes, is in no
 * core dump, and is wiped when it is given back.
 */

#ifndef QCOW2EXT_SECRET_H
#define QCOW2EXT_SECRET_H

#include <stddef.h>

/* Returns size (> 0) bytes of zeros, or NULL with errno set.  Without
 * privileges, the limit on locked memory may be too low for all of them: they
 * are then used unlocked.
 */
void *secret_alloc (size_t size);

/* Wipes and frees; NULL is allowed. */
void secret_free (void *secret);

/* Locks all of them again: a lock does not survive a fork. */
void secret_relock (void);

#endif /* QCOW2EXT_SECRET_H */
