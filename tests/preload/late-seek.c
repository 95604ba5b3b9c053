/* qcow2ext: a file system that is late to know data, for test-late-seek.sh.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Goes before the C library (LD_PRELOAD).  All files seem to be on FUSE, where
 * for lseek there is no data behind the first page but what was flushed.
 */

/* Not build-config.h: here both names of a call are needed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FILES 1024

static atomic_bool unflushed[FILES]; /* by descriptor */

#define NEXT(type, name)                                                \
  static type next;                                                     \
  if (next == NULL)                                                     \
    next = (type) dlsym (RTLD_NEXT, name)

typedef int (*fstatfs_fn) (int, struct statfs *);
typedef off_t (*lseek_fn) (int, off_t, int);
typedef ssize_t (*pwrite_fn) (int, const void *, size_t, off_t);
typedef int (*fdatasync_fn) (int);

int
fstatfs64 (int fd, struct statfs64 *fs)
{
  NEXT (fstatfs_fn, "fstatfs64");
  const int r = next (fd, (struct statfs *) fs);

  fs->f_type = FUSE_SUPER_MAGIC;
  return r;
}

off64_t
lseek64 (int fd, off64_t offset, int whence)
{
  NEXT (lseek_fn, "lseek64");
  if (whence == SEEK_DATA && offset >= 4096 && fd < FILES && unflushed[fd]) {
    errno = ENXIO;
    return -1;
  }
  return next (fd, offset, whence);
}

ssize_t
pwrite64 (int fd, const void *buf, size_t count, off64_t offset)
{
  NEXT (pwrite_fn, "pwrite64");
  if (fd < FILES)
    unflushed[fd] = true;
  return next (fd, buf, count, offset);
}

int
fdatasync (int fd)
{
  NEXT (fdatasync_fn, "fdatasync");
  if (fd < FILES)
    unflushed[fd] = false;
  return next (fd);
}

int
fstatfs (int fd, struct statfs *fs)
{
  return fstatfs64 (fd, (struct statfs64 *) fs);
}

off_t
lseek (int fd, off_t offset, int whence)
{
  return lseek64 (fd, offset, whence);
}

ssize_t
pwrite (int fd, const void *buf, size_t count, off_t offset)
{
  return pwrite64 (fd, buf, count, offset);
}
