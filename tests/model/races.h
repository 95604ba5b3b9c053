/* qcow2ext: requests that race with each other.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef RACES_H
#define RACES_H

#include <stdbool.h>
#include <stddef.h>

#include "crash-workloads.h"
#include "scheduler.h"

#define MAX_REQUESTS 5          /* of a thread */

struct race {
  const char *name;
  const struct image_spec *spec;
  unsigned variant;
  size_t l2_cache;
  struct request setup[6];
  unsigned n_setup;
  struct request request[SCHED_THREADS][MAX_REQUESTS];
  unsigned n_requests[SCHED_THREADS];
  unsigned threads;
  struct memory_fault fault;    /* nth 0: none */
};

/* A place among the races of all kinds, on all images; 0: the first. */
struct race_cursor {
  unsigned race, image, variant;
};

/* Makes the next race; false: there is none. */
bool race_next (struct race_cursor *at, struct race *r);

/* Makes the race of this name that r->spec and r->variant say; false: there is
 * none.
 */
bool race_make (struct race *r, const char *name);

#endif /* RACES_H */
