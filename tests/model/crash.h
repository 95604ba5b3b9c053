/* qcow2ext: what a disk may show after a crash.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A world is an image in memory with a model of what the guest wrote to it.
 * A workload is run in it, while everything is recorded.  Then the record is
 * cut at every operation, and the states are built that the files may be in
 * if the power goes at that moment: all that was flushed (a flush of one file
 * says nothing of the other), and any part of what was not, where a write may
 * be torn between sectors.  Each state must be sound:
 *
 *   - the checker finds no error, though perhaps leaked clusters
 *   - each sector of the guest holds what was last flushed or something that
 *     was written later; likewise a raw data file, by itself
 *   - the snapshot holds what it always did
 *   - the engine opens it and reads the same
 *   - it can be written to, after which there still is no error
 */

#ifndef CRASH_H
#define CRASH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "rng.h"
#include "workload.h"
#include "world.h"

/* n, or a quarter of it in the short form that 'make check' runs (see
 * tests/Makefile.am), but at least 1.
 */
unsigned crash_share (unsigned n);

struct crash_stats {
  uint64_t built, distinct, by_qemu;
  uint64_t faults;              /* that were met */
  uint64_t pauses;              /* likewise */
  uint64_t workloads;
  uint64_t cuts, cuts_in_full;  /* places to cut; with all subsets tried */
};

struct crash_options {
  uint64_t seed;
  uint64_t max_states;          /* of one workload; 0: no limit */
  unsigned qemu_every;          /* check every nth state with qemu-img; 0 */
  bool from_pause;              /* nothing before a request that is stopped */
};

/* Runs a workload and checks the states it may leave behind.  Returns false,
 * with a message in failure, at the first one that is not sound.
 */
bool crash_run (const struct workload *workload,
                const struct crash_options *options,
                struct crash_stats *stats, char failure[1024]);

/* Writes down which states have been tried; adds what another process wrote,
 * and returns how many of those are new.
 */
bool crash_states_write (FILE *f);
uint64_t crash_states_add (FILE *f);

/* Drops the messages of the engine (or shows them, if told so by the
 * environment).
 */
void crash_quiet (void);

#endif /* CRASH_H */
