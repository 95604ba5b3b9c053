/* qcow2ext: the directory of dir=, whose images are served.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_DIRECTORY_H
#define QCOW2EXT_DIRECTORY_H

#include <stdbool.h>
#include <sys/stat.h>

#include "file-id.h"

/* Opens the directory, once, before the server forks; and lets as many files
 * be open as the system allows this process.  Return 0 or -1 (reported).
 */
int directory_open (void);
void directory_raise_limit (void);
void directory_close (void);

/* Opens the regular file of that name right in the directory, for writing if
 * that is wanted and allowed.  Returns a descriptor or -errno.  explain says
 * what such an error means, for a message.
 */
int directory_open_file (const char *name, bool writable, struct stat *st);
const char *directory_explain (int error);

/* Does the name still lead to that file? */
bool directory_has (const char *name, const struct file_id *id);

/* Calls fn for each image, with a descriptor that is closed afterwards, until
 * it returns something else than 0.  Only the first bytes of files are read.
 * Returns that, 0, or -1 (reported) if the directory cannot be read.
 */
typedef int (*directory_fn) (void *opaque, const char *name, int fd);
int directory_each (directory_fn fn, void *opaque);

#endif /* QCOW2EXT_DIRECTORY_H */
