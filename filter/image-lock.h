/* qcow2ext: locks that keep others from an image that is in use.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_IMAGE_LOCK_H
#define QCOW2EXT_IMAGE_LOCK_H

#include <stdbool.h>

/* Locks the open file for reading or for writing; called again, changes what
 * is held.  The lock goes with the open file description.  A file system
 * without locks counts as locked.  Returns 0 or -EBUSY (reported).
 */
int image_lock (int fd, bool writing, const char *name);

#endif /* QCOW2EXT_IMAGE_LOCK_H */
