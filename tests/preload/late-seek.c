/* qcow2ext: a file system that is late to know data, for test-late-seek.sh.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Goes before the C library (LD_PRELOAD).  All files seem to be on FUSE, where
 * for lseek there is no data behind the first page but what was flushed; with
 * LATE_SEEK_TYPE=overlay, on overlayfs above that.
 *
 * If there is a file LATE_SEEK_HOLD, fdatasync makes another one with ".held"
 * behind its name, and waits until it is gone (but not for ever).
 *
 * If there is a file LATE_SEEK_GATHER, every pwrite waits until eight of them
 * are under way, the last of which removes the file.
 */

/* Not build-config.h: here both names of a call are needed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FILES 1024

/* By descriptor: how many writes there were, and have been flushed. */
static atomic_uint written[FILES], flushed[FILES];

#define NEXT(type, name)                                                \
  static type next;                                                     \
  if (next == NULL)                                                     \
    next = (type) dlsym (RTLD_NEXT, name)

typedef int (*fstatfs64_fn) (int, struct statfs64 *);
typedef int (*fstatfs_fn) (int, struct statfs *);
typedef off64_t (*lseek_fn) (int, off64_t, int);
typedef ssize_t (*pwrite_fn) (int, const void *, size_t, off64_t);
typedef int (*fdatasync_fn) (int);

static long
seeming_type (void)
{
  const char *type = getenv ("LATE_SEEK_TYPE");

  return type && strcmp (type, "overlay") == 0 ? OVERLAYFS_SUPER_MAGIC
                                               : FUSE_SUPER_MAGIC;
}

int
fstatfs64 (int fd, struct statfs64 *fs)
{
  NEXT (fstatfs64_fn, "fstatfs64");
  const int r = next (fd, fs);

  fs->f_type = seeming_type ();
  return r;
}

off64_t
lseek64 (int fd, off64_t offset, int whence)
{
  NEXT (lseek_fn, "lseek64");
  if (whence == SEEK_DATA && offset >= 4096 && fd < FILES
      && written[fd] != flushed[fd]) {
    errno = ENXIO;
    return -1;
  }
  return next (fd, offset, whence);
}

static void
gather (void)
{
  static atomic_int under_way;
  const char *path = getenv ("LATE_SEEK_GATHER");

  if (path == NULL || access (path, F_OK) == -1)
    return;
  if (++under_way == 8)
    unlink (path);
  for (int i = 0; i < 500 && access (path, F_OK) == 0; i++)
    usleep (10000);
  under_way--;
}

ssize_t
pwrite64 (int fd, const void *buf, size_t count, off64_t offset)
{
  NEXT (pwrite_fn, "pwrite64");
  gather ();
  if (fd < FILES)
    written[fd]++;
  return next (fd, buf, count, offset);
}

static void
hold (void)
{
  const char *path = getenv ("LATE_SEEK_HOLD");
  char held[4096];

  if (path == NULL || access (path, F_OK) == -1)
    return;
  snprintf (held, sizeof held, "%s.held", path);
  close (open (held, O_CREAT | O_WRONLY, 0600));
  for (int i = 0; i < 3000 && access (path, F_OK) == 0; i++)
    usleep (10000);
}

int
fdatasync (int fd)
{
  NEXT (fdatasync_fn, "fdatasync");
  const unsigned n = fd < FILES ? written[fd] : 0;
  const int r = next (fd);

  hold ();
  if (fd < FILES)
    flushed[fd] = n;
  return r;
}

int
fstatfs (int fd, struct statfs *fs)
{
  NEXT (fstatfs_fn, "fstatfs");
  const int r = next (fd, fs);

  fs->f_type = seeming_type ();
  return r;
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
