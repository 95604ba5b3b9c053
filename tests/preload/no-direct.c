/* qcow2ext: a file system without direct I/O, for test-direct-refused.sh.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Goes before the C library (LD_PRELOAD).
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

typedef int (*fcntl_fn) (int, int, ...);

static int
call (const char *name, int fd, int command, void *arg)
{
  fcntl_fn next = (fcntl_fn) dlsym (RTLD_NEXT, name);

  if (command == F_SETFL && ((long) arg & O_DIRECT)) {
    errno = EINVAL;
    return -1;
  }
  return next (fd, command, arg);
}

#define DEFINE(name)                            \
  int                                           \
  name (int fd, int command, ...)               \
  {                                             \
    va_list ap;                                 \
    void *arg;                                  \
                                                \
    va_start (ap, command);                     \
    arg = va_arg (ap, void *);                  \
    va_end (ap);                                \
    return call (#name, fd, command, arg);      \
  }

#undef fcntl
#undef fcntl64
DEFINE (fcntl)
DEFINE (fcntl64)
