/* qcow2ext: makes system calls on files fail, for test-io-errors.sh.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Goes before the C library (LD_PRELOAD).  The file that FAIL_IO names says
 * what fails:
 *
 *   CALL NAME NTH ERRNO
 *
 * The nth CALL (from 1; pread, pwrite, fdatasync, fallocate or ftruncate) on a
 * file whose path ends with NAME fails, once; if NTH is 0, each does.  With an
 * ERRNO of 0 they do not fail, but wait until that file has gone or says
 * something else.  Counting begins anew when that file changes.  If there is none, nothing fails.  What
 * has failed, or waits, is told by creating the same name with ".met".
 */

/* Not build-config.h: here both names of a call are needed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char order[300];         /* as it was last seen */
static int calls;

static bool
ends_with (const char *s, const char *end)
{
  const size_t a = strlen (s), b = strlen (end);

  return a >= b && strcmp (s + a - b, end) == 0;
}

/* Reads the order; empty if there is none. */
static void
read_order (const char *name, char now[300])
{
  FILE *f = fopen (name, "re");
  size_t n = f ? fread (now, 1, 299, f) : 0;

  now[n] = '\0';
  if (f)
    fclose (f);
}

/* Does it say that still? */
static bool
is_order (const char *name, const char *said)
{
  char now[300];

  read_order (name, now);
  return strcmp (now, said) == 0;
}

/* Does this call fail?  Sets errno. */
static bool
fails (const char *call, int fd)
{
  const char *name = getenv ("FAIL_IO");
  char now[300], link[64], path[4096], wanted[32], file[200], met[4096];
  int nth, error = 0, saved_errno = errno;
  bool hit = false;
  ssize_t n;

  if (name == NULL)
    return false;
  pthread_mutex_lock (&lock);
  read_order (name, now);
  if (strcmp (now, order) != 0) {
    strcpy (order, now);
    calls = 0;
  }
  if (sscanf (now, "%31s %199s %d %d", wanted, file, &nth, &error) == 4
      && strcmp (wanted, call) == 0) {
    snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink (link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    hit = ends_with (path, file) && (++calls == nth || nth == 0);
  }
  if (hit) {
    snprintf (met, sizeof met, "%s.met", name);
    close (open (met, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (error)
      saved_errno = error;
  }
  pthread_mutex_unlock (&lock);
  while (hit && error == 0 && is_order (name, now))
    usleep (10000);
  errno = saved_errno;
  return hit && error;
}

/* Calls go by two names, which are the same where files are large anyway.  On a
 * machine of 32 bits nbdkit and the filter use those with 64.
 */
typedef ssize_t (*pread_fn) (int, void *, size_t, off64_t);
typedef ssize_t (*pwrite_fn) (int, const void *, size_t, off64_t);
typedef int (*fdatasync_fn) (int);
typedef int (*fallocate_fn) (int, int, off64_t, off64_t);
typedef int (*ftruncate_fn) (int, off64_t);

#define NEXT(type, name)                                                \
  static type next;                                                     \
  if (next == NULL)                                                     \
    next = (type) dlsym (RTLD_NEXT, name)

ssize_t
pread64 (int fd, void *buf, size_t count, off64_t offset)
{
  NEXT (pread_fn, "pread64");
  return fails ("pread", fd) ? -1 : next (fd, buf, count, offset);
}

ssize_t
pwrite64 (int fd, const void *buf, size_t count, off64_t offset)
{
  NEXT (pwrite_fn, "pwrite64");
  /* Half of it has come to be, in whole sectors. */
  if (fails ("pwrite", fd)) {
    const int saved_errno = errno;
    const size_t half = count / 2 / 512 * 512;

    if (half && next (fd, buf, half, offset) == -1)
      return -1;
    errno = saved_errno;
    return -1;
  }
  return next (fd, buf, count, offset);
}

int
fdatasync (int fd)
{
  NEXT (fdatasync_fn, "fdatasync");
  return fails ("fdatasync", fd) ? -1 : next (fd);
}

int
fallocate64 (int fd, int mode, off64_t offset, off64_t count)
{
  NEXT (fallocate_fn, "fallocate64");
  return fails ("fallocate", fd) ? -1 : next (fd, mode, offset, count);
}

int
ftruncate64 (int fd, off64_t size)
{
  NEXT (ftruncate_fn, "ftruncate64");
  return fails ("ftruncate", fd) ? -1 : next (fd, size);
}

ssize_t
pread (int fd, void *buf, size_t count, off_t offset)
{
  return pread64 (fd, buf, count, offset);
}

ssize_t
pwrite (int fd, const void *buf, size_t count, off_t offset)
{
  return pwrite64 (fd, buf, count, offset);
}

int
fallocate (int fd, int mode, off_t offset, off_t count)
{
  return fallocate64 (fd, mode, offset, count);
}

int
ftruncate (int fd, off_t size)
{
  return ftruncate64 (fd, size);
}
