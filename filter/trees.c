/* qcow2ext: the directories that an image may use by default.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The path of an image may be renamed by others than the operator: by the owner
 * of its directory, or of a directory above.  After the image was opened, they
 * can put a link to, say, /etc/hostname in its place, or a link to /etc in that
 * of its directory.  So a tree is a descriptor, and it is taken only if the
 * last part of the path leads, from that very directory, to the file that is
 * open.  A directory in which they may not make names can thus not become a
 * tree, whatever they rename, and whenever.
 *
 * The root directory is none: all files of the machine are below.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "file-id.h"
#include "trees.h"

void
trees_free (struct trees *trees)
{
  for (unsigned i = 0; i < trees->nr; i++) {
    free (trees->tree[i].path);
    close (trees->tree[i].fd);
  }
  *trees = (struct trees) { .nr = 0 };
}

/* Does the name in the directory lead to the file? */
static bool
leads_to (int dir_fd, const char *name, const struct stat *st, int flags)
{
  const struct file_id expected = file_id_of (st);
  struct file_id there;
  struct stat st_there;

  if (fstatat (dir_fd, name, &st_there, flags) == -1)
    return false;
  there = file_id_of (&st_there);
  return file_id_equal (&there, &expected);
}

static bool
is_root (int dir_fd)
{
  struct stat st, st_root;

  return fstat (dir_fd, &st) == -1 || stat ("/", &st_root) == -1
    || (st.st_dev == st_root.st_dev && st.st_ino == st_root.st_ino);
}

/* An error that says nothing of the file and its directory. */
static bool
is_shortage (int error)
{
  return error == ENOMEM || error == EMFILE || error == ENFILE;
}

/* Adds the directory of the path, if the path leads from there to the file.
 * flags are those of fstatat.
 */
static int
add_tree (struct trees *trees, const char *path, const struct stat *st,
          int flags)
{
  const char *slash = strrchr (path, '/');
  CLEANUP_FREE char *dir = NULL, *resolved = NULL;
  int fd;

  if (slash == NULL)
    return 0;
  dir = strndup (path, slash == path ? 1 : slash - path);
  if (dir == NULL)
    return -ENOMEM;
  resolved = realpath (dir, NULL);
  if (resolved == NULL)
    return is_shortage (errno) ? -errno : 0;
  if (trees->nr > 0 && strcmp (resolved, trees->tree[0].path) == 0)
    return 0;
  /* A link that is followed here leads to a directory that does not hold the
   * file, as is seen below, or to one that does and may be a tree.
   */
  fd = open (resolved, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd == -1)
    return is_shortage (errno) ? -errno : 0;
  if (!leads_to (fd, slash + 1, st, flags)) {
    close (fd);
    return 0;
  }
  if (is_root (fd)) {
    trees->none = "an image in the root directory may name nothing by itself";
    close (fd);
    return 0;
  }
  trees->tree[trees->nr++] = (struct tree) { .path = resolved, .fd = fd };
  resolved = NULL;
  return 0;
}

int
trees_set (struct trees *trees, const char *path, const struct stat *st)
{
  CLEANUP_FREE char *resolved = NULL;
  int r;

  trees_free (trees);
  if (S_ISBLK (st->st_mode)) {
    trees->none = "an image on a device may name nothing by itself";
    return 0;
  }
  trees->none = "its directory is not known, since what the command line names "
    "was moved or replaced while it was opened (try again)";
  r = add_tree (trees, path, st, 0);
  if (r < 0)
    return r;
  resolved = realpath (path, NULL);
  if (resolved == NULL)
    return is_shortage (errno) ? -errno : 0;
  return add_tree (trees, resolved, st, AT_SYMLINK_NOFOLLOW);
}
