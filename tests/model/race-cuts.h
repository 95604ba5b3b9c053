/* qcow2ext: what two files may be when the power goes during a race.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef RACE_CUTS_H
#define RACE_CUTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store-memory.h"

struct race_cuts {
  const struct memory_log *log;
  const struct memory_file *start; /* of the image file and the data file */
  size_t first;                 /* operations before that are not cut at */
  uint64_t seed;

  /* Looks at a state that there may be after so many operations.  Returns
   * whether to go on.
   */
  bool (*look) (void *opaque, struct memory_file state[2], size_t cut);
  void *opaque;
  uint64_t cuts, states;        /* results */
};

/* Cuts after each operation.  What was not flushed is there or not: all
 * subsets of a few operations, samples of more; and the last one torn.  After
 * a flush that failed nothing is known, and so nothing is tried.
 */
void race_cuts_run (struct race_cuts *c);

/* A number that stands for a record of operations. */
uint64_t race_cuts_hash (const struct memory_log *log);

#endif /* RACE_CUTS_H */
