/* qcow2ext: a file or a directory that is replaced while it is opened, for
 * test-image-replaced.sh and test-data-file-allowed-swapped.sh.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Goes before the C library (LD_PRELOAD).  If there is a file REPLACE_FILE with
 * ".N" behind its name, the Nth time that REPLACE_FILE is opened for reading or
 * writing from then on, the other one takes its name as soon as it is open.
 *
 * If there is something with the name REPLACE_DIRECTORY and ".new" behind it, it
 * takes that name just before the directory, or / on the way to it, is opened
 * with O_PATH.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int (*open_fn) (const char *, int, ...);

static void
opened (void)
{
  static atomic_uint times;
  const char *path = getenv ("REPLACE_FILE");
  char other[4096];
  unsigned n;

  if (path == NULL)
    return;
  for (n = 1; n < 10; n++) {
    snprintf (other, sizeof other, "%s.%u", path, n);
    if (access (other, F_OK) == 0)
      break;
  }
  if (n < 10 && ++times == n) {
    rename (other, path);
    times = 0;
  }
}

static void
replace_directory (const char *path, int flags)
{
  const char *dir = getenv ("REPLACE_DIRECTORY");
  char new[4096], old[4096];

  if (dir == NULL || !(flags & O_PATH)
      || (strcmp (path, "/") != 0 && strcmp (path, dir) != 0))
    return;
  snprintf (new, sizeof new, "%s.new", dir);
  snprintf (old, sizeof old, "%s.old", dir);
  if (access (new, F_OK) == 0 && rename (dir, old) == 0)
    rename (new, dir);
}

/* Has fd been opened under the path of REPLACE_FILE? */
static int
is_it (int fd, int flags)
{
  const char *path = getenv ("REPLACE_FILE");
  struct stat st, there;

  return fd != -1 && !(flags & O_PATH) && path && stat (path, &there) == 0
    && fstat (fd, &st) == 0 && st.st_dev == there.st_dev
    && st.st_ino == there.st_ino;
}

static int
call (const char *name, const char *path, int flags, mode_t mode)
{
  open_fn next = (open_fn) dlsym (RTLD_NEXT, name);
  int fd, saved_errno;

  replace_directory (path, flags);
  fd = next (path, flags, mode);
  saved_errno = errno;
  if (is_it (fd, flags))
    opened ();
  errno = saved_errno;
  return fd;
}

#define DEFINE(name)                                    \
  int                                                   \
  name (const char *path, int flags, ...)               \
  {                                                     \
    va_list ap;                                         \
    mode_t mode;                                        \
                                                        \
    va_start (ap, flags);                               \
    mode = va_arg (ap, int);                            \
    va_end (ap);                                        \
    return call (#name, path, flags, mode);             \
  }

#undef open
#undef open64
DEFINE (open)
DEFINE (open64)
