/* qcow2ext: the directories that an image may use by default.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_TREES_H
#define QCOW2EXT_TREES_H

#include <sys/stat.h>

/* A directory, with all that is below. */
struct tree {
  char *path;                   /* of when it was opened, without links */
  int fd;                       /* with O_PATH */
};

/* Those of a file that the operator named: the directory in which that name
 * is, and, if it is a symbolic link, the directory of the file.
 */
struct trees {
  struct tree tree[2];
  unsigned nr;
  const char *none;             /* if nr is 0: why, for a message */
};

/* Sets the trees to those of the open file that the path, which is absolute,
 * led to; st is what fstat says of that file.  There may be none, as none says
 * then.  Returns 0 or -errno: the system lacks memory or descriptors.  In
 * either case trees_free is due.
 */
int trees_set (struct trees *trees, const char *path, const struct stat *st);
void trees_free (struct trees *trees);

#endif /* QCOW2EXT_TREES_H */
