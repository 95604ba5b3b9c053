/* qcow2ext: requests against each other, in every order.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each race is two or three threads with a request or a few.  One thread is
 * stopped at its kth point, then another at its jth, then the first runs to its
 * end; for all k and j there are, and whoever begins.  (See scheduler.h for
 * what a point is.)  After that come random schedules, which switch more
 * often.  Each time:
 *
 *   - nobody waits for ever
 *   - what is read is what the requests lead to in an order in which they may
 *     have happened: no other bytes, nobody's who shared but the cluster
 *   - of each part of the disk, one such order leads to what is there at the
 *     end and to all that was read of it, but for a read that saw two states
 *   - the files, with all that was written, with what was flushed by each
 *     flush, and after settling, have no errors, and hold what they should
 *
 *   test-unit-races                        what 'make check-full' does
 *   test-unit-races all [RACE]             all schedules, without a limit
 *   test-unit-races RACE IMAGE VARIANT SEGMENTS...
 *                                          one again, as printed
 *   test-unit-races mutants                only the broken rules
 *   test-unit-races cut [RACE]             all schedules, and in each of them
 *                                          a power cut at every operation
 *   test-unit-races triples SECONDS [SEED] the races of three threads, with
 *                                          random schedules and power cuts
 *
 * Schedules that lead to the same record of operations, with requests that
 * begin and end at the same places of it, differ only in the order of steps
 * that commute: after the first of them the power is not cut again.
 */

#include "build-config.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "crash-workloads.h"
#include "mutant.h"
#include "race-check.h"
#include "races.h"
#include "scheduler.h"

const char *qcow2_mutant;

/* How many schedules of two threads are tried of each race, in make check,
 * and how many random ones.
 */
#define LIMIT 90
#define RANDOM 20
#define CUTS_EVERY 10           /* of these schedules the power is cut in */

/* --- all schedules of a race --- */

struct search {
  const struct race *race;
  uint64_t limit;               /* schedules; 0: none */
  unsigned random;
  unsigned flushes_every;       /* nth schedule, look at each flush */
  unsigned cuts_every;          /* nth schedule, cut at every operation; 0 */
  unsigned tried;
  struct schedule schedule;     /* the last one */
  char failure[400];
};

static bool
try (struct search *s, const struct sched_segment *segment, size_t n,
     size_t *reached)
{
  struct sched_result result;
  bool ok;

  memcpy (s->schedule.segment, segment, n * sizeof *segment);
  s->schedule.segments = n;
  ok = race_run (s->race, &s->schedule,
                 s->tried % s->flushes_every == 0,
                 s->cuts_every && s->tried % s->cuts_every == 0, &result,
                 s->failure);
  s->tried++;
  *reached = result.reached;
  return ok;
}

/* How many points has a thread that runs first and alone? */
static unsigned
count_points (struct search *s, unsigned thread)
{
  const struct schedule schedule = { .segment = { { thread, 0 } },
                                     .segments = 1 };
  struct sched_result result;
  char failure[400];

  race_run (s->race, &schedule, false, false, &result, failure);
  return result.passed[thread];
}

/* Stops "first" at each of its points, and then, for each of those, "second"
 * at each of its own, with the third in between if there is one.
 */
static bool
try_pair (struct search *s, unsigned first, unsigned second, unsigned third,
          uint64_t *left, unsigned stride_k, unsigned stride_j)
{
  for (unsigned k = 0;; k += stride_k) {
    size_t reached;

    for (unsigned j = 0;; j += stride_j) {
      struct sched_segment segment[4];
      size_t n = 0;
      unsigned parks = 0;

      if (s->limit && *left == 0)
        return true;
      if (k) {
        segment[n++] = (struct sched_segment) { first, k };
        parks++;
      }
      if (j) {
        segment[n++] = (struct sched_segment) { second, j };
        parks++;
      }
      if (third < s->race->threads)
        segment[n++] = (struct sched_segment) { third, 0 };
      if (j)                    /* j 0: second to its end at once */
        segment[n++] = (struct sched_segment) { first, 0 };
      else
        segment[n++] = (struct sched_segment) { second, 0 };
      (*left)--;
      if (!try (s, segment, n, &reached))
        return false;
      if (k && reached == 0)
        return true;            /* first has no such point */
      if (reached < parks)
        break;                  /* second has not */
    }
  }
}

static bool
try_random (struct search *s, uint64_t seed)
{
  struct rng rng = { seed };
  struct sched_segment segment[SCHED_SEGMENTS];
  const unsigned longest = 2 + rng_below (&rng, 12);
  size_t reached;

  for (unsigned i = 0; i < SCHED_SEGMENTS; i++)
    segment[i] = (struct sched_segment) {
      rng_below (&rng, s->race->threads), 1 + rng_below (&rng, longest)
    };
  return try (s, segment, SCHED_SEGMENTS, &reached);
}

/* Under a limit, schedules are left out evenly. */
static bool
search_race (struct search *s)
{
  const unsigned threads = s->race->threads;
  unsigned points[SCHED_THREADS], pairs = threads * (threads - 1);

  for (unsigned t = 0; t < threads; t++)
    points[t] = count_points (s, t);
  for (unsigned a = 0; a < threads; a++)
    for (unsigned b = 0; b < threads; b++) {
      const uint64_t all = (points[a] + 1) * (uint64_t) (points[b] + 1);
      uint64_t left = s->limit ? s->limit / pairs + 1 : 0;
      unsigned stride_k = 1, stride_j = 1;

      if (a == b)
        continue;
      while (s->limit && all / (stride_k * stride_j) > left)
        if (points[a] / stride_k > points[b] / stride_j)
          stride_k++;
        else
          stride_j++;
      if (!try_pair (s, a, b, threads == 3 ? 3 - a - b : SCHED_THREADS, &left,
                     stride_k, stride_j))
        return false;
    }
  for (unsigned i = 0; i < s->random; i++)
    if (!try_random (s, 1000 * s->race->variant + i))
      return false;
  return true;
}

static void
print_failure (const struct search *s)
{
  size_t n = s->schedule.segments;

  printf ("%s %s %u", s->race->name, s->race->spec->name, s->race->variant);
  for (size_t i = 0; i < n; i++)
    printf (" %u:%u", s->schedule.segment[i].thread,
            s->schedule.segment[i].points);
  printf (": %s\n", s->failure);
}

/* --- mutants --- */

/* Rules as broken, and a race that is tried first. */
static const struct {
  const char *name, *first, *rule;
} mutants[] = {
  { "no_range_lock", "write-write",
    "two requests allocate in one cluster at the same time" },
  { "look_first", "write-write",
    "a write looks at a cluster's state and then waits for others" },
  { "zero_looks_first", "write-zero",
    "zeroing looks at a cluster's state and then waits for others" },
  { "no_grace", "read-reallocate",
    "what is let go of is used again while requests still look at it" },
  { "reuse_before_durable", "trim-flush-allocate",
    "what is let go of is used again before that is durable" },
  { "publish_first", "two-cows-flush",
    "entries are published before the data is written" },
  { "collect_late", "flush-flush",
    "a commit collects after its first flush" },
  { "read_uncounted", "read-reallocate",
    "reads do not count as in flight" },
  { "join_commit", "flush-flush",
    "a flush is content with a commit that has begun before it" },
  { "two_makers", "growth-write",
    "refcount blocks are made while others are being made" },
  { "load_twice", "eviction-write",
    "a table is read without a look whether another thread has" },
  { "evict_busy", "eviction-write",
    "a table that is being written is evicted" },
  { "table_twice", "first-writes",
    "a new L2 table is made without a look whether another plan has" },
  { "start_twice", "first-writes",
    "a session is prepared for without a look whether another has" },
  { "l1_after_l2", "commit-first-write",
    "a commit copies L2 tables and, in a later critical section, L1 entries" },
  { "bitmap_look_first", "settle-flush",
    "a change looks whether bitmaps are open and then counts as in flight" },
  { "bitmap_no_grace", "settle-flush",
    "bitmaps are stored while changes are in flight" },
  { "flip_early", "settle-flush",
    "a set in which requests are in flight becomes the current one again" },
  { "keep_raced_table", "first-writes",
    "a table that another plan was faster to make is kept" },
  { "hole_found_late", "hole-zero-write",
    "what was found to be a hole counts as one whatever happened meanwhile" },
  { "hole_under_write", "write-hole-write",
    "a cluster counts as a hole although a late write in place has ended" },
  { "late_write", "write-zero-write",
    "the next to write to a zeroed cluster does not wait for writes in place" },
  { "discard_late", "trim-flush-allocate",
    "space is given back after it is free to be used again" },
  { "no_data_flush", "flush-flush",
    "a commit does not flush guest data before pointers" },
  { "no_image_flush", "flush-flush",
    "a commit does not flush counts and tables before pointers" },
  { "counts_with_pointers", "flush-flush",
    "counts are written with the pointers" },
};

static bool
kill_mutant (const char *first, bool others, uint64_t limit)
{
  struct race_cursor at = { 0 };
  struct race race;

  while (race_next (&at, &race)) {
    struct search s = {
      .race = &race, .limit = limit, .random = 2 * RANDOM,
      .flushes_every = 1, .cuts_every = 3
    };

    if ((strcmp (race.name, first) == 0) == others)
      continue;
    if (!search_race (&s)) {
      printf ("caught: %-20s by ", qcow2_mutant);
      print_failure (&s);
      return true;
    }
  }
  return false;
}

/* Each in a process of its own: a broken engine may do anything. */
static unsigned
try_mutants (const char *only)
{
  unsigned survived = 0, tried = 0;

  for (size_t i = 0; i < sizeof mutants / sizeof mutants[0]; i++) {
    pid_t pid;
    int status;

    if (only ? strcmp (only, mutants[i].name) != 0
             : i % (3 / crash_share (3)) != 0)
      continue;
    tried++;
    sched_end ();
    fflush (stdout);
    pid = fork ();
    if (pid == 0) {
      bool killed;

      qcow2_mutant = mutants[i].name;
      /* Where a few schedules of many show it, those that are left out may
       * be these.
       */
      killed = kill_mutant (mutants[i].first, false, 10 * LIMIT)
        || kill_mutant (mutants[i].first, false, 0)
        || kill_mutant (mutants[i].first, true, 10 * LIMIT);
      fflush (stdout);
      _exit (killed ? 0 : 1);
    }
    if (pid < 0 || waitpid (pid, &status, 0) != pid)
      abort ();
    if (WIFSIGNALED (status))
      printf ("caught: %-20s by a crash: %s\n", mutants[i].name,
              strsignal (WTERMSIG (status)));
    else if (WEXITSTATUS (status) != 0) {
      survived++;
      printf ("SURVIVED: %s: %s\n", mutants[i].name, mutants[i].rule);
    }
  }
  printf ("%u mutants were caught, %u survived\n", tried - survived,
          survived);
  return survived + (tried == 0);
}

/* --- three threads, for as long as wanted --- */

static double
now (void)
{
  struct timespec t = { 0 };

  clock_gettime (CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void
print_totals (unsigned races, unsigned failures, double begin)
{
  printf ("%u races, %" PRIu64 " schedules of %" PRIu64 " points, %" PRIu64
          " states of files, %u failures, %.0f seconds\n", races,
          race_totals.schedules, race_totals.points, race_totals.states,
          failures, now () - begin);
  printf ("the power was cut in %" PRIu64 " schedules, which are %" PRIu64
          " records, at %" PRIu64 " places: %" PRIu64 " states\n",
          race_totals.to_cut, race_totals.records, race_totals.cuts,
          race_totals.cut_states);
}

/* The races share the time.  How many schedules of the second half of each
 * lead to a record that was not there before says how much is still unseen.
 */
static unsigned
try_triples (double seconds, uint64_t seed)
{
  const double begin = now ();
  struct race_totals late = { 0 };
  struct race_cursor at = { 0 };
  struct race race;
  unsigned races = 0, n = 0, failures = 0;

  while (race_next (&at, &race))
    races += race.threads == 3;
  at = (struct race_cursor) { 0 };
  printf ("seed %" PRIu64 "\n", seed);
  while (race_next (&at, &race)) {
    struct search s = {
      .race = &race, .flushes_every = UINT_MAX, .cuts_every = 1
    };
    bool ok = true;

    if (race.threads != 3)
      continue;
    race_forget_records ();
    for (unsigned half = 0; half < 2; half++) {
      const struct race_totals before = race_totals;

      while (ok && now () - begin < seconds / races * (n + (half + 1) / 2.0))
        ok = try_random (&s, seed++);
      if (half) {
        late.to_cut += race_totals.to_cut - before.to_cut;
        late.records += race_totals.records - before.records;
      }
    }
    n++;
    if (!ok) {
      failures++;
      printf ("FAIL: ");
      print_failure (&s);
      if (strcmp (s.failure, "a deadlock") == 0)
        break;
    }
  }
  print_totals (n, failures, begin);
  printf ("in the second half %" PRIu64 " of %" PRIu64 " schedules led to a "
          "record that was not there before\n", late.records, late.to_cut);
  return failures;
}

/* --- */

static bool
again (int argc, char *argv[])
{
  struct race race = {
    .spec = crash_spec (argv[2]), .variant = strtoul (argv[3], NULL, 0)
  };
  struct search s = { .race = &race, .flushes_every = 1, .cuts_every = 1 };
  struct sched_segment segment[SCHED_SEGMENTS];
  size_t reached;

  if (!race_make (&race, argv[1]))
    return false;
  for (int i = 4; i < argc; i++)
    if (sscanf (argv[i], "%u:%u", &segment[i - 4].thread,
                &segment[i - 4].points) != 2)
      return false;
  sched_verbose = true;
  if (try (&s, segment, argc - 4, &reached))
    return true;
  print_failure (&s);
  return false;
}

int
main (int argc, char *argv[])
{
  const double begin = now ();
  const bool cut = argc > 1 && strcmp (argv[1], "cut") == 0;
  const bool all = cut || (argc > 1 && strcmp (argv[1], "all") == 0);
  const char *only = argc > 1 + all ? argv[1 + all] : NULL;
  struct race_cursor at = { 0 };
  struct race race;
  unsigned failures = 0, n = 0;

  crash_quiet ();
  setvbuf (stdout, NULL, _IOLBF, 0);
  qcow2_mutant = getenv ("QCOW2EXT_TEST_MUTANT");
  if (argc > 4)
    return again (argc, argv) ? EXIT_SUCCESS : EXIT_FAILURE;
  if (argc > 1 && strcmp (argv[1], "mutants") == 0)
    return try_mutants (argv[2]) ? EXIT_FAILURE : EXIT_SUCCESS;
  if (argc > 2 && strcmp (argv[1], "triples") == 0) {
    const uint64_t seed =
      argc > 3 ? strtoull (argv[3], NULL, 0) : (uint64_t) time (NULL);

    failures = try_triples (strtod (argv[2], NULL), seed);
    sched_end ();
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
  }

  while (race_next (&at, &race)) {
    struct search s = { .race = &race };

    if (only && strcmp (only, race.name) != 0)
      continue;
    n++;
    s.limit = all ? 0 : crash_share (LIMIT);
    s.random = all ? 50 * RANDOM : crash_share (RANDOM);
    s.flushes_every = cut ? UINT_MAX : all ? 1 : 3;
    s.cuts_every = cut ? 1 : all ? 0 : CUTS_EVERY;
    race_forget_records ();
    if (!search_race (&s)) {
      failures++;
      printf ("FAIL: ");
      print_failure (&s);
      if (strcmp (s.failure, "a deadlock") == 0)
        return EXIT_FAILURE;    /* with threads that hang */
    }
  }
  print_totals (n, failures, begin);
  if (argc == 1 && failures == 0)
    failures += try_mutants (NULL);
  sched_end ();
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
