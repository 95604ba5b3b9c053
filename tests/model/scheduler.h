/* qcow2ext: runs threads in an order that the test says.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Of the threads that are scheduled only one runs at a time.  It passes points:
 * before it takes a lock of the engine's while it holds none, before and
 * after each operation on a store, and at each PAUSE_POINT.  At a point it can
 * be parked while others go on.  Waiting for a lock or a condition is giving way, too:
 * the linker sends pthread_mutex_lock, _unlock and pthread_cond_wait here.
 * So a schedule always leads to the same execution, nothing depends on
 * time, and a deadlock is seen as such.
 */

#ifndef SCHEDULER_H
#define SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>

#define SCHED_THREADS 3
#define SCHED_SEGMENTS 128

/* A thread runs until it is at its nth point from here; 0: to its end.  If it
 * has to wait for another, others move on by single points until it can.
 */
struct sched_segment {
  unsigned thread, points;
};

struct schedule {
  struct sched_segment segment[SCHED_SEGMENTS];
  size_t segments;              /* then all run to their end, in order */
};

struct sched_result {
  size_t reached;               /* segments that parked their thread */
  size_t passed[SCHED_THREADS]; /* points */
  bool deadlock;
};

/* Calls body (opaque, i) in threads 0 to n - 1. */
void sched_run (unsigned n, void (*body) (void *opaque, unsigned thread),
                void *opaque, const struct schedule *schedule,
                struct sched_result *result);

/* A point, if the caller is a scheduled thread. */
void sched_point (const char *name);

/* Show the points as they are passed. */
extern bool sched_verbose;

/* Ends the threads, which otherwise stay for the next run. */
void sched_end (void);

#endif /* SCHEDULER_H */
