/* qcow2ext: messages of the engine.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_REPORT_H
#define QCOW2_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <pthread.h>

enum report_level { REPORT_DEBUG, REPORT_WARNING, REPORT_ERROR };

/* Where messages go.  Set once, before any other call into the engine; the
 * default prints warnings and errors on stderr.  The sink may be called by
 * any thread and keeps errno.
 */
typedef void (*report_sink_fn) (enum report_level level, const char *message);
void report_set_sink (report_sink_fn sink);

/* Names come from images and clients: what in a message could forge a line of
 * the log, or change what a terminal does, becomes '?' (base/printable.h).
 */
void report (enum report_level level, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

#define report_error(...) report (REPORT_ERROR, __VA_ARGS__)
#define report_warning(...) report (REPORT_WARNING, __VA_ARGS__)
#define report_debug(...) report (REPORT_DEBUG, __VA_ARGS__)

/* On data paths a bad image must not fill the log: an image has one of
 * these, and a message is written only when report_allowed says so (a few a
 * second; the first one after a silence says how many were left out).
 */
struct report_limit {
  pthread_mutex_t lock;
  int64_t second;               /* CLOCK_MONOTONIC, when counting began */
  unsigned count;               /* messages in that second */
  unsigned long suppressed;     /* messages left out since the last one */
};
#define REPORT_LIMIT_INIT { .lock = PTHREAD_MUTEX_INITIALIZER }
bool report_allowed (struct report_limit *limit);

#define report_limited(limit, ...)              \
  do {                                          \
    if (report_allowed (limit))                 \
      report_error (__VA_ARGS__);               \
  } while (0)

#endif /* QCOW2_REPORT_H */
