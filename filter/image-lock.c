/* qcow2ext: locks that keep others from an image that is in use.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * QEMU's protocol, so that it works against qemu as well.  There are
 * permissions, each a number; byte 100 + n of a file is locked (shared) by
 * who uses permission n, byte 200 + n by who does not let others use it.
 * Having taken the locks, one looks whether anybody holds the counterpart of
 * one's own.  The locks are of open file descriptions.
 *
 * A reader reads, and lets others neither write nor resize; a writer does
 * both, and lets others do neither.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "image-lock.h"
#include "base/report.h"

enum { CONSISTENT_READ = 0, WRITE = 1, RESIZE = 3 };

#define USED_BASE 100
#define DENIED_BASE 200

/* Sets the lock of a byte; returns 0 or -errno. */
static int
set (int fd, int type, off_t byte)
{
  struct flock l = {
    .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1
  };

  return fcntl (fd, F_OFD_SETLK, &l) == -1 ? -errno : 0;
}

/* Does anybody else hold a lock of the byte? */
static bool
taken (int fd, off_t byte)
{
  struct flock l = {
    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1
  };

  return fcntl (fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

int
image_lock (int fd, bool writing, const char *name)
{
  const int type = writing ? F_RDLCK : F_UNLCK;
  int r;

  if ((r = set (fd, F_RDLCK, USED_BASE + CONSISTENT_READ)) < 0
      || (r = set (fd, F_RDLCK, DENIED_BASE + WRITE)) < 0
      || (r = set (fd, F_RDLCK, DENIED_BASE + RESIZE)) < 0
      || (r = set (fd, type, USED_BASE + WRITE)) < 0
      || (r = set (fd, type, USED_BASE + RESIZE)) < 0) {
    if (r != -EAGAIN && r != -EACCES) {
      report_debug ("%s: not locked: %s", name, strerror (-r));
      return 0;
    }
  }
  else if (!taken (fd, DENIED_BASE + CONSISTENT_READ)
           && !taken (fd, USED_BASE + WRITE)
           && !taken (fd, USED_BASE + RESIZE)
           && !(writing && (taken (fd, DENIED_BASE + WRITE)
                            || taken (fd, DENIED_BASE + RESIZE))))
    return 0;

  set (fd, F_UNLCK, USED_BASE + WRITE);
  set (fd, F_UNLCK, USED_BASE + RESIZE);
  report_error ("%s: the file is in use by another process, or by this server "
                "as part of another image, which %s; end that first, or give "
                "qcow2ext-lock=false if it does no harm",
                name, taken (fd, USED_BASE + WRITE)
                ? "writes to it" : "does not let others write to it");
  return -EBUSY;
}
