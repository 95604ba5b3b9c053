/* qcow2ext: opening a file below a directory, and no other.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if __has_include(<linux/openat2.h>)
#include <linux/openat2.h>
#endif

#include "base/cleanup.h"
#include "beneath.h"
#include "file-id.h"
#include "lease-wait.h"

/* Opens rest, which has no link in it as far as we saw, below root_fd, and
 * fails if by now it has one.
 */
static int
open_components (int root_fd, const char *rest, int flags)
{
  CLEANUP_CLOSE int dir = -1;
  int at = root_fd;

  for (;;) {
    const size_t len = strcspn (rest, "/");
    char component[256];
    int fd;

    if (len >= sizeof component)
      return -ENAMETOOLONG;
    memcpy (component, rest, len);
    component[len] = '\0';

    if (rest[len] == '\0') {
      fd = openat (at, component, flags | O_NOFOLLOW);
      return fd == -1 ? -errno : fd;
    }
    fd = openat (at, component,
                 O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd == -1)
      return -errno;
    if (dir != -1)
      close (dir);
    at = dir = fd;
    rest += len + 1;
  }
}

static int
open_beneath (int root_fd, const char *rest, int flags)
{
#if defined (SYS_openat2) && defined (RESOLVE_BENEATH)
  /* The library adds O_LARGEFILE to what goes through it; without it a kernel of
   * 32 bits refuses large files.  With O_PATH openat2 does not take it.
   */
  const struct open_how how = {
    .flags = flags & O_PATH ? flags : flags | O_LARGEFILE,
    .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
  };
  const long fd = syscall (SYS_openat2, root_fd, rest, &how, sizeof how);

  if (fd >= 0)
    return fd;
  /* Old kernels lack it, and sandboxes that do not know it say EPERM. */
  if (errno != ENOSYS && errno != EPERM)
    return -errno;
#endif
  return open_components (root_fd, rest, flags);
}

/* Opens rest below root_fd or, with AT_FDCWD, the operator's path rest. */
static int
open_either (int root_fd, const char *rest, int flags)
{
  int fd;

  if (root_fd != AT_FDCWD)
    return open_beneath (root_fd, rest, flags);
  fd = open (rest, flags);
  return fd == -1 ? -errno : fd;
}

/* O_NONBLOCK is for a FIFO that has taken the place of the file meanwhile. */
static int
open_waiting (int root_fd, const char *rest, bool writable)
{
  const int flags = O_NONBLOCK | O_NOCTTY | O_CLOEXEC
    | (writable ? O_RDWR : O_RDONLY);
  struct lease_wait wait = { 0 };
  int fd;

  do
    fd = open_either (root_fd, rest, flags);
  while (fd == -EWOULDBLOCK && lease_wait (&wait));
  return fd == -EWOULDBLOCK ? -EBUSY : fd;
}

/* Opens the file having made sure, without opening it, that it is a regular file
 * or a block device.  Returns a descriptor or -errno, as beneath_open does.
 */
static int
open_checked (int root_fd, const char *rest, bool writable, struct stat *st)
{
  CLEANUP_CLOSE int probe = -1;
  struct file_id expected, found;
  int fd;

  probe = open_either (root_fd, rest, O_PATH | O_CLOEXEC);
  if (probe < 0)
    return probe;
  if (fstat (probe, st) == -1)
    return -errno;
  if (!S_ISREG (st->st_mode) && !S_ISBLK (st->st_mode))
    return -EINVAL;

  fd = open_waiting (root_fd, rest, writable);
  if (fd < 0)
    return fd;

  expected = file_id_of (st);
  if (fstat (fd, st) == -1) {
    close (fd);
    return -EIO;
  }
  found = file_id_of (st);
  if (!file_id_equal (&expected, &found)) {
    close (fd);
    return -EAGAIN;             /* exchanged under our hands */
  }
  return fd;
}

int
beneath_open (int root_fd, const char *rest, bool writable, struct stat *st)
{
  const int fd = open_checked (root_fd, rest, writable, st);

  if (writable && (fd == -EACCES || fd == -EPERM || fd == -EROFS
                   || fd == -ETXTBSY))
    return open_checked (root_fd, rest, false, st);
  return fd;
}

const char *
beneath_explain (int error)
{
  switch (error) {
  case -EAGAIN:
    return "the file was exchanged while it was opened; try again";
  case -EBUSY:
    return "it is in use, or another program, such as a file server, has a "
      "lease of it and does not give it up; end that use";
  case -EMFILE:
  case -ENFILE:
    return "too many files are open: let the server have more (ulimit -n, "
      "LimitNOFILE=), or let clients disconnect";
  default:
    return strerror (-error);
  }
}

int
beneath_open_directory (const char *path)
{
  const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  CLEANUP_CLOSE int root = open ("/", flags);

  if (root == -1)
    return -errno;
  path += strspn (path, "/");
  return open_beneath (root, path[0] ? path : ".", flags);
}
