/* qcow2ext: the directory of dir=, whose images are served.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An image is a regular file right in the directory.  All files are opened
 * beneath one descriptor of the directory, and links are not followed: a name
 * from a client leads to a file in it or nowhere.
 */

#include "build-config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "base/cleanup.h"
#include "beneath.h"
#include "config.h"
#include "directory.h"
#include "disk/format.h"
#include "export-name.h"

static int directory_fd = -1;

int
directory_open (void)
{
  directory_fd = open (config.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_fd == -1)
    nbdkit_error ("dir=%s: %m", config.directory);
  return directory_fd == -1 ? -1 : 0;
}

/* Each image that is open takes a few descriptors. */
void
directory_raise_limit (void)
{
  struct rlimit limit;

  if (getrlimit (RLIMIT_NOFILE, &limit) == -1
      || limit.rlim_cur == limit.rlim_max)
    return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit (RLIMIT_NOFILE, &limit) == -1)
    nbdkit_error ("warning: dir=: the limit of open files stays as it is: "
                  "%m");
}

void
directory_close (void)
{
  if (directory_fd != -1)
    close (directory_fd);
  directory_fd = -1;
}

int
directory_open_file (const char *name, bool writable, struct stat *st)
{
  int fd;

  if (fstatat (directory_fd, name, st, AT_SYMLINK_NOFOLLOW) == -1)
    return -errno;
  if (S_ISLNK (st->st_mode))
    return -ELOOP;
  if (!S_ISREG (st->st_mode))
    return -EINVAL;
  fd = beneath_open (directory_fd, name, writable, st);
  if (fd >= 0 && !S_ISREG (st->st_mode)) {
    close (fd);
    return -EINVAL;
  }
  return fd;
}

const char *
directory_explain (int error)
{
  switch (error) {
  case -ENOENT:
    return "there is no such image; nbdinfo --list shows those there are";
  case -EINVAL:
    return "with dir=, an image is a regular file";
  case -ELOOP:
    return "with dir=, symbolic links are not followed";
  default:
    return beneath_explain (error);
  }
}

bool
directory_has (const char *name, const struct file_id *id)
{
  struct stat st;
  struct file_id there;

  if (fstatat (directory_fd, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
    return errno != ENOENT;     /* nobody knows, then */
  there = file_id_of (&st);
  return file_id_equal (&there, id);
}

static bool
has_magic (int fd)
{
  be32 magic;

  return pread (fd, &magic, sizeof magic, 0) == sizeof magic
    && be32_get (magic) == QCOW2_MAGIC;
}

int
directory_each (directory_fn fn, void *opaque)
{
  const int fd = openat (directory_fd, ".",
                         O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd == -1 ? NULL : fdopendir (fd);
  struct dirent *d;
  int r = 0;

  if (dir == NULL) {
    nbdkit_error ("dir=%s: %s", config.directory, directory_explain (-errno));
    if (fd != -1)
      close (fd);
    return -1;
  }
  while (r == 0 && (errno = 0, d = readdir (dir)) != NULL) {
    CLEANUP_CLOSE int file = -1;
    struct stat st;

    if ((d->d_type != DT_REG && d->d_type != DT_UNKNOWN)
        || !export_name_is_file (d->d_name))
      continue;
    file = directory_open_file (d->d_name, false, &st);
    if (file >= 0 && has_magic (file))
      r = fn (opaque, d->d_name, file);
  }
  if (r == 0 && errno) {
    nbdkit_error ("dir=%s: %m", config.directory);
    r = -1;
  }
  closedir (dir);
  return r;
}
