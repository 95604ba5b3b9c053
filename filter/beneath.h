/* qcow2ext: opening a file below a directory, and no other.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_BENEATH_H
#define QCOW2EXT_BENEATH_H

#include <stdbool.h>
#include <sys/stat.h>

/* Opens the regular file or block device rest below root_fd, for writing if
 * that is wanted and allowed.  No symbolic link is followed, and nothing is
 * opened that was not seen to be of these kinds, so that opening does not
 * block, but for another program's lease of the file, and then not for ever (see
 * lease-wait.c).  With AT_FDCWD, rest is a path of the operator's, in which
 * links are followed.  Returns a descriptor or -errno; -EINVAL: it is of another
 * kind; -EAGAIN: it was exchanged meanwhile; -EBUSY: there is a lease.
 */
int beneath_open (int root_fd, const char *rest, bool writable,
                  struct stat *st);

/* What it means, and what can be done, that beneath_open has failed. */
const char *beneath_explain (int error);

/* Opens the directory at path, which is absolute, with O_PATH, as a root for what
 * is below it.  No symbolic link is followed.  Returns a descriptor or -errno.
 */
int beneath_open_directory (const char *path);

#endif /* QCOW2EXT_BENEATH_H */
