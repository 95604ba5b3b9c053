/* qcow2ext: waiting until another program gives up its lease of a file.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A file server takes a lease (F_SETLEASE) of a file that a client of its own
 * has open: an oplock, a delegation.  Opening the file tells the holder to give
 * it up.  Without O_NONBLOCK, open waits for that.  With it, which keeps open
 * from waiting for ever on a FIFO, it fails with EWOULDBLOCK, having told the
 * holder nevertheless, so that trying again is enough.  The kernel takes the lease
 * away from a holder that does not react.
 */

#include "build-config.h"

#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "lease-wait.h"

/* How long the kernel lets a holder take, in seconds, if we cannot find out. */
#define BREAK_TIME 45

/* The longest pause, in milliseconds. */
#define MAX_PAUSE 64

static int64_t
now_ms (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* If it is 0, the kernel takes no lease away; nor does it ever take one that its
 * NFS server has given to a client.
 */
static int
break_time (void)
{
  char value[16] = "";
  CLEANUP_CLOSE int fd = open ("/proc/sys/fs/lease-break-time",
                               O_RDONLY | O_CLOEXEC);
  int seconds;

  if (fd == -1 || read (fd, value, sizeof value - 1) <= 0)
    return BREAK_TIME;
  seconds = atoi (value);
  return seconds > 0 ? seconds : BREAK_TIME;
}

bool
lease_wait (struct lease_wait *w)
{
  const int64_t now = now_ms ();

  if (w->until == 0)
    w->until = now + (break_time () + 1) * INT64_C (1000);
  if (now >= w->until)
    return false;
  w->pause = w->pause == 0 ? 1 : w->pause * 2;
  if (w->pause > MAX_PAUSE)
    w->pause = MAX_PAUSE;
  nanosleep (&(struct timespec) { .tv_nsec = w->pause * 1000000L }, NULL);
  return true;
}
