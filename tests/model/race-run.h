/* qcow2ext: one execution of a race, and what is checked after it.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef RACE_RUN_H
#define RACE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crash.h"
#include "races.h"
#include "scheduler.h"

#define MAX_ALL (SCHED_THREADS * MAX_REQUESTS)
#define MAX_REGIONS (2 * MAX_ALL + 2)

struct done {
  const struct request *request;
  uint8_t *content;             /* of a write; or what was read */
  size_t begin, end;            /* events; SIZE_MAX: never */
  size_t log_begin, log;        /* operations at its beginning, at its end */
  int result;
  uint32_t seen[MAX_REGIONS];   /* of a read: the sources that each region may
                                   be from; 0: from more than one */
};

struct run {
  const struct race *race;
  struct memory_file file[MEMORY_FILES];
  struct memory_log log;
  struct image *image;
  size_t events;
  struct done done[MAX_ALL];    /* thread by thread, MAX_REQUESTS each */
  uint8_t *initial;             /* before the threads */
  bool initial_durable;         /* was that flushed? */
  unsigned initial_leaks;
  struct memory_file start[MEMORY_FILES];

  /* The disk is cut where requests begin and end. */
  uint64_t cut[MAX_REGIONS];
  unsigned cuts;
  char failure[400];
};

/* What differs only with the image. */
struct pristine {
  const struct image_spec *spec;
  struct memory_file file[MEMORY_FILES];
  uint8_t *guest;
  uint32_t in_use;              /* bitmaps that were already */
  unsigned leaks;
};

/* Of all executions. */
struct race_totals {
  uint64_t schedules, states, points;
  uint64_t to_cut, records, cuts, cut_states;
};
extern struct race_totals race_totals;

/* Runs the requests in the order that a schedule says; with_flushes: looks at
 * what each flush has left, with_cuts: at what a power cut after each operation
 * may leave.  Returns false, with a message in failure, if it leads to
 * something wrong.
 */
bool race_run (const struct race *race, const struct schedule *schedule,
               bool with_flushes, bool with_cuts, struct sched_result *result,
               char failure[400]);

/* The first failure counts. */
void race_fail (struct run *run, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

#endif /* RACE_RUN_H */
