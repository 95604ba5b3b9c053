/* qcow2ext: which files are open under which names.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_CLAIMS_H
#define QCOW2EXT_CLAIMS_H

#include <stdbool.h>
#include <sys/stat.h>

/* In a directory, one file can have several names (hard links).  It is open
 * under one of them only, or two writers would not know of each other.
 *
 * The owner is any pointer; name is for messages and stays the owner's.
 * Returns 0, or -errno (reported): -EBUSY if another owner has the file.
 */
int claims_take (const void *owner, const char *name, const struct stat *st);
void claims_drop (const void *owner);
bool claims_has (const void *owner);

#endif /* QCOW2EXT_CLAIMS_H */
