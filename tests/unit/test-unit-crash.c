/* qcow2ext: a power cut at any moment loses nothing that was flushed.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   test-unit-crash                     what 'make check-full' does
 *   test-unit-crash SECONDS [SEED]      all of it at random, for so long
 *   test-unit-crash IMAGE SEED          a random workload again
 *   test-unit-crash IMAGE NAME VARIANT [SEED]
 *                                       one of the others again
 *   test-unit-crash short [EVERY [FROM]]
 *                                       all short histories, or each
 *                                       so-and-so-many-th from one on
 *
 * With QCOW2EXT_TEST_VERBOSE=1 the requests, the operations and the engine's
 * messages are shown.
 *
 * The first two are done by several processes.  They wait at times, for
 * requests that are stopped and for qemu-img, and there are other processors.
 * Who is free takes the next workload.
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "crash-workloads.h"

#define WORKERS 4

#define ROUNDS 4                /* of random workloads over all images */
#define STATES_OF_RANDOM 600
#define STATES_OF_DIRECTED 80
#define STATES_OF_PAIR 100
#define STATES_OF_LONG 4000     /* of one workload, in a long run */
#define PAIRS_TRIED 800         /* of some thousands */
#define SHORT_EVERY 401         /* of all short histories */
#define QEMU_EVERY 499
#define QEMU_EVERY_LONG 9973

static struct crash_stats total;
static unsigned failures, qemu_every = QEMU_EVERY;
static uint64_t short_every, short_from; /* 0: not only these */

/* Workloads are numbered.  What the workers share is the next one that nobody
 * has taken.
 */
static unsigned *next_free;
static unsigned at_number, taken;

static bool
is_mine (void)
{
  if (taken == at_number)
    taken = 1 + __atomic_fetch_add (next_free, 1, __ATOMIC_RELAXED);
  return ++at_number == taken;
}

static void
run (const struct workload *workload, uint64_t seed, uint64_t max_states)
{
  const struct crash_options options = {
    .seed = seed, .max_states = max_states, .qemu_every = qemu_every,
    .from_pause = strcmp (workload->name, "pair") == 0,
  };
  char failure[1024];

  if (crash_run (workload, &options, &total, failure))
    return;
  failures++;
  if (strcmp (workload->name, "random") == 0)
    printf ("FAIL: %s %" PRIu64 ": %s\n", workload->spec->name, seed, failure);
  else
    printf ("FAIL: %s %s %u %" PRIu64 ": %s\n", workload->spec->name,
            workload->name, workload->variant, seed, failure);
}

static void
run_random (const struct image_spec *spec, uint64_t seed, uint64_t max_states)
{
  struct rng rng = { seed };
  struct workload workload;

  workload_random (&workload, spec, &rng, 8 + rng_below (&rng, 24));
  run (&workload, seed, max_states);
  workload_free (&workload);
}

static void
run_all_directed (void)
{
  struct directed_cursor at = { 0 };
  struct workload workload;

  while (crash_directed (&at, &workload)) {
    if (is_mine ())
      run (&workload, 0, STATES_OF_DIRECTED);
    workload_free (&workload);
  }
}

/* A pair at all points. */
static void
run_pair (unsigned number, uint64_t seed, uint64_t max_states)
{
  struct workload workload;

  for (unsigned half = 0; half < 2; half++)
    for (unsigned i = 0; i < PAIR_POINTS / 2; i++) {
      const uint64_t met = total.pauses;

      if (!crash_pair (number, half * PAIR_POINTS / 2 + i, &workload))
        return;
      run (&workload, seed, max_states);
      workload_free (&workload);
      if (total.pauses == met)
        break;
    }
}

/* One of them again. */
static void
run_one (const char *spec, const char *name, unsigned variant, uint64_t seed)
{
  struct directed_cursor at = { 0 };
  struct workload workload;

  if (strcmp (name, "short") == 0) {
    if (crash_short (seed, &workload)) {
      run (&workload, seed, 0);
      workload_free (&workload);
    }
    return;
  }
  if (strcmp (name, "pair") == 0) {
    if (crash_pair (variant / PAIR_POINTS, variant % PAIR_POINTS, &workload)) {
      run (&workload, seed, 0);
      workload_free (&workload);
    }
    return;
  }
  while (crash_directed (&at, &workload)) {
    if (strcmp (spec, workload.spec->name) == 0
        && strcmp (name, workload.name) == 0 && variant == workload.variant)
      run (&workload, seed, 0);
    workload_free (&workload);
  }
}

/* How many states to try of a workload in a long run.  Looking at large images
 * takes longer.
 */
static uint64_t
long_states (const struct image_spec *spec)
{
  const uint64_t bytes = spec->size + (spec->leaked << spec->cluster_bits);

  return STATES_OF_LONG / (1 + (bytes >> 17));
}

/* Some of everything, with seeds that nobody has tried. */
static void
run_long (time_t until, uint64_t seed)
{
  struct directed_cursor at = { 0 };
  unsigned specs = 0;

  while (crash_specs[specs].name)
    specs++;
  qemu_every = QEMU_EVERY_LONG;
  for (; time (NULL) < until; seed++) {
    struct rng rng = { ~seed };
    const struct image_spec *spec = &crash_specs[rng_below (&rng, specs)];
    struct workload directed;

    if (!crash_directed (&at, &directed)) {
      memset (&at, 0, sizeof at);
      continue;
    }
    if (is_mine ()) {
      run_random (spec, seed, long_states (spec));
      run_pair (rng_below (&rng, crash_pairs ()), seed, STATES_OF_LONG / 20);
      run (&directed, seed, long_states (directed.spec));
    }
    workload_free (&directed);
  }
}

/* Each so-and-so-many-th of the short histories, with each state. */
static void
run_shorts (uint64_t every, uint64_t from)
{
  struct workload workload;

  for (uint64_t i = from; i < crash_shorts (); i += every)
    if (is_mine () && crash_short (i, &workload)) {
      run (&workload, i, 0);
      workload_free (&workload);
    }
}

/* What 'make check-full' does, and of which 'make check' does a part. */
static void
run_check (void)
{
  uint64_t seed = 1;

  run_all_directed ();
  run_shorts (SHORT_EVERY * (ROUNDS / crash_share (ROUNDS)), 0);
  for (unsigned i = 0; i < crash_share (PAIRS_TRIED); i++)
    if (is_mine ())
      run_pair (i * UINT64_C (7919) % crash_pairs (), i, STATES_OF_PAIR);
  for (unsigned i = 0; i < crash_share (ROUNDS); i++)
    for (const struct image_spec *s = crash_specs; s->name; s++, seed++)
      if (is_mine ())
        run_random (s, seed, STATES_OF_RANDOM);
}

/* --- workers --- */

struct worker {
  pid_t pid;
  FILE *report;                 /* total, failures, states */
};

static void
work (const struct worker *me, time_t until, uint64_t seed)
{
  bool ok;

  if (short_every)
    run_shorts (short_every, short_from);
  else if (until)
    run_long (until, seed);
  else
    run_check ();
  ok = fwrite (&total, sizeof total, 1, me->report) == 1
    && fwrite (&failures, sizeof failures, 1, me->report) == 1
    && crash_states_write (me->report) && fflush (me->report) == 0;
  _exit (ok ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void
add_report (const struct worker *worker)
{
  struct crash_stats stats;
  unsigned more;
  int status;

  if (waitpid (worker->pid, &status, 0) != worker->pid || status != 0
      || fseek (worker->report, 0, SEEK_SET) != 0
      || fread (&stats, sizeof stats, 1, worker->report) != 1
      || fread (&more, sizeof more, 1, worker->report) != 1) {
    printf ("FAIL: a process ended early\n");
    failures++;
  }
  else {
    failures += more;
    total.distinct += crash_states_add (worker->report);
    total.built += stats.built;
    total.workloads += stats.workloads;
    total.by_qemu += stats.by_qemu;
    total.cuts += stats.cuts;
    total.cuts_in_full += stats.cuts_in_full;
  }
  fclose (worker->report);
}

static void
run_workers (time_t until, uint64_t seed)
{
  struct worker worker[WORKERS];

  next_free = mmap (NULL, sizeof *next_free, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (unsigned i = 0; i < WORKERS; i++) {
    struct worker *w = &worker[i];

    w->report = tmpfile ();
    if (next_free == MAP_FAILED || w->report == NULL
        || (w->pid = fork ()) < 0) {
      perror ("a process");
      exit (EXIT_FAILURE);
    }
    if (w->pid == 0)
      work (w, until, seed);
  }
  for (unsigned i = 0; i < WORKERS; i++)
    add_report (&worker[i]);
}

int
main (int argc, char *argv[])
{
  const time_t begin = time (NULL);
  uint64_t seed;

  crash_quiet ();
  setvbuf (stdout, NULL, _IOLBF, 0);
  if (argc > 1 && strcmp (argv[1], "short") == 0) {
    short_every = argc > 2 ? strtoull (argv[2], NULL, 0) : 1;
    short_from = argc > 3 ? strtoull (argv[3], NULL, 0) : 0;
    qemu_every = QEMU_EVERY_LONG;
    run_workers (0, 0);
  }
  else if (argc >= 4)
    run_one (argv[1], argv[2], strtoul (argv[3], NULL, 0),
             argc > 4 ? strtoull (argv[4], NULL, 0) : 0);
  else if (argc > 1 && (argv[1][0] < '0' || strspn (argv[1], "0123456789")
                                              < strlen (argv[1])))
    run_random (crash_spec (argv[1]),
                argc > 2 ? strtoull (argv[2], NULL, 0) : 0, 0);
  else if (argc > 1) {
    seed = argc > 2 ? strtoull (argv[2], NULL, 0) : (uint64_t) begin << 20;
    printf ("seeds from %" PRIu64 "\n", seed);
    run_workers (begin + strtol (argv[1], NULL, 0), seed);
  }
  else
    run_workers (0, 0);

  printf ("%" PRIu64 " distinct states (%" PRIu64 " built) of %" PRIu64
          " workloads, cut at %" PRIu64 " places, at %" PRIu64 " of them with "
          "all subsets, %" PRIu64 " states seen by qemu-img check, %u "
          "failures, %ld seconds\n", total.distinct, total.built,
          total.workloads, total.cuts, total.cuts_in_full, total.by_qemu,
          failures,
          (long) (time (NULL) - begin));
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
