/* qcow2ext: messages of the engine.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/printable.h"
#include "base/report.h"

/* Lines a second that one image may write about its bad ranges. */
#define MESSAGES_PER_SECOND 3

static void
stderr_sink (enum report_level level, const char *message)
{
  if (level != REPORT_DEBUG)
    fprintf (stderr, "%s%s\n", level == REPORT_WARNING ? "warning: " : "",
             message);
}

static report_sink_fn report_sink = stderr_sink;

void
report_set_sink (report_sink_fn sink)
{
  report_sink = sink;
}

void
report (enum report_level level, const char *fmt, ...)
{
  int saved_errno = errno;
  char message[2048];
  va_list ap;

  va_start (ap, fmt);
  errno = saved_errno;          /* for %m */
  vsnprintf (message, sizeof message, fmt, ap);
  va_end (ap);

  printable_mask (message);
  report_sink (level, message);
  errno = saved_errno;
}

bool
report_allowed (struct report_limit *limit)
{
  struct timespec now;
  unsigned long suppressed = 0;
  bool allowed;

  clock_gettime (CLOCK_MONOTONIC, &now);

  pthread_mutex_lock (&limit->lock);
  if (limit->second != now.tv_sec) {
    limit->second = now.tv_sec;
    limit->count = 0;
  }
  allowed = limit->count < MESSAGES_PER_SECOND;
  if (allowed) {
    limit->count++;
    suppressed = limit->suppressed;
    limit->suppressed = 0;
  }
  else
    limit->suppressed++;
  pthread_mutex_unlock (&limit->lock);

  if (suppressed)
    report_error ("%lu similar messages were left out", suppressed);
  return allowed;
}
