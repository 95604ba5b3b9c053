/* qcow2ext: the crash tests find what they look for.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Where the engine orders its writes it can be told to break one rule (see
 * mutant.h).  Whichever it is, the crash tests must notice.
 *
 *   test-unit-mutants                   all of them
 *   test-unit-mutants NAME              one, with what it does
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crash-workloads.h"
#include "mutant.h"

#define ROUNDS 20               /* of random workloads, if need be */

const char *qcow2_mutant;

/* The rules, as broken, and a workload that is tried first. */
static const struct {
  const char *name, *first, *rule;
} mutants[] = {
  { "no_data_flush", "parts",
    "the data file is flushed after the pointers" },
  { "no_image_flush", "parts",
    "the image file is not flushed before the pointers" },
  { "counts_with_pointers", "parts",
    "raised counts are written along with the pointers" },
  { "table_with_pointer", "parts",
    "an L2 table is written along with what refers to it" },
  { "collect_late", "in-a-commit",
    "a commit collects after its first flush" },
  { "publish_first", "commit-in-a-write",
    "entries are published before the data is written" },
  { "lower_first", "reuse",
    "counts are lowered before the pointers are durable" },
  { "reuse_before_durable", "reuse",
    "what is let go of is used again before that is durable" },
  { "no_grace", "reuse-in-a-request",
    "what is let go of is used again while requests still look at it" },
  { "no_range_lock", "in-one-cluster",
    "two requests allocate in one cluster at the same time" },
  { "look_first", "in-one-cluster",
    "a request looks at a cluster's state and then waits for others" },
  { "zero_looks_first", "in-one-cluster",
    "zeroing looks at a cluster's state and then waits for others" },
  { "no_fill", "parts",
    "the rest of a new cluster is not filled" },
  { "link_block_early", "grow",
    "a refcount block is linked before it is durable" },
  { "link_table_early", "grow",
    "a new refcount table is linked before it is durable" },
  { "no_header_flush", "parts",
    "a change of the header is not flushed" },
  { "trim_below_start", "grow",
    "more of the file is given back than this session grew" },
  { "forget_failed_flush", "failed-flush",
    "after a failed flush, life goes on" },
  { "fresh_again", "failed-write",
    "after a failed commit a table that is perhaps linked counts as new" },
};

static struct crash_stats total;

/* Returns whether it was caught. */
static bool
try_workload (const struct workload *workload, uint64_t seed)
{
  const struct crash_options options = { .seed = seed, .max_states = 400 };
  char failure[1024], *end;

  if (crash_run (workload, &options, &total, failure))
    return false;
  end = strchr (failure, '\n');
  if (end && !getenv ("QCOW2EXT_TEST_VERBOSE"))
    *end = '\0';
  printf ("caught: %-21s by %s of %s: %s\n", qcow2_mutant, workload->name,
          workload->spec->name, failure);
  return true;
}

static bool
try_directed (const char *only, const char *except)
{
  struct directed_cursor at = { 0 };
  struct workload workload;
  bool caught = false;

  while (!caught && crash_directed (&at, &workload)) {
    if (only ? strcmp (only, workload.name) == 0
             : strcmp (except, workload.name) != 0)
      caught = try_workload (&workload, 1);
    workload_free (&workload);
  }
  return caught;
}

static bool
try_random (void)
{
  bool caught = false;
  uint64_t seed = 1;

  for (unsigned i = 0; i < ROUNDS; i++)
    for (const struct image_spec *s = crash_specs; s->name && !caught; s++) {
      struct rng rng = { seed };
      struct workload workload;

      workload_random (&workload, s, &rng, 12);
      caught = try_workload (&workload, seed++);
      workload_free (&workload);
    }
  return caught;
}

int
main (int argc, char *argv[])
{
  const time_t begin = time (NULL);
  unsigned killed = 0, survived = 0;

  crash_quiet ();
  setvbuf (stdout, NULL, _IOLBF, 0);
  for (size_t i = 0; i < sizeof mutants / sizeof mutants[0]; i++) {
    if (argc > 1 && strcmp (argv[1], mutants[i].name) != 0)
      continue;
    qcow2_mutant = mutants[i].name;
    if (try_directed (mutants[i].first, NULL)
        || try_directed (NULL, mutants[i].first) || try_random ())
      killed++;
    else {
      survived++;
      printf ("SURVIVED: %s: %s\n", mutants[i].name, mutants[i].rule);
    }
  }
  printf ("%u mutants were caught, %u survived, %" PRIu64 " states, %ld "
          "seconds\n", killed, survived, total.distinct,
          (long) (time (NULL) - begin));
  return survived || killed == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
