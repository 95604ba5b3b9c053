/* qcow2ext: the crash tests find what they look for.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The copies of the engine that this is linked with can be told to break one
 * rule (see mutants/rules.mut).  Whichever it is, the crash tests must notice.
 *
 *   test-unit-mutants                   all of them
 *   test-unit-mutants NAME              one, with what it does
 *
 * The rules, with the invariants of docs/architecture.md that they keep, and the
 * mutants that break them:
 *
 * I1 I2 guest data and raised counts     no_data_flush, no_image_flush,
 *       are durable before pointers      counts_with_pointers
 * I1    a table is durable before what   table_with_pointer, link_block_early,
 *       refers to it                     link_table_early, bitmap_table_early
 * I2    counts are lowered last          lower_first, discard_early
 * I4    a commit publishes what was      collect_late, publish_first
 *       complete when it began
 * I10   eviction is a commit             evict_dirty, evict_busy
 * I1 I3 what is written in rounds is     l1_first_round, free_first_round
 *       there only after the last one
 * I14   flushes share a commit that has  join_commit
 *       not begun
 * I9    wait for allocations, then look  look_first, zero_looks_first
 * I3    reuse after the commit, and      reuse_before_durable, no_grace
 *       after all requests
 * I9    one allocation in a cluster at   no_range_lock
 *       a time
 * I8    data and filling appear as one   no_fill, no_cow, all_virgin
 * I8    what is known to be empty is     hole_after_zero
 * I15   what a snapshot shares moves     write_shared, share_table
 * I11   no lock during data I/O          lock_across_io
 * I12   what fails leaves nothing        fresh_again, publish_failed,
 *       behind and forgets nothing       keep_after_failure, keep_pieces,
 *                                        no_restore, forget_failed_commit,
 *                                        keep_failed_table
 * I13   a failed flush ends writing,     forget_failed_flush, forget_failed_link,
 *       wherever it was                  forget_failed_header,
 *                                        forget_failed_bitmap
 * I13   ... but not reading              refuse_reads
 * I14   a flush covers plain data, too   flush_tables_only
 *       the tail that grew is given      trim_below_start, no_trim_tail
 *       back, and no more
 *       idle images are complete         settle_once, settle_tables_only
 * I5    header patches are durable,      no_header_flush, patch_in_two
 *       and appear as one
 * I5    unknown autoclear bits go first  keep_autoclear
 * I5    counts are repaired, durably,    clean_before_counts,
 *       before the dirty bit goes        repair_unflushed
 * I6    bitmaps are in use, durably,     bitmap_open_late
 *       before a change
 * I6    ... and until they are stored    bitmap_close_early
 * I7    a raw data file is the disk      raw_zero_in_table, raw_trim_in_table,
 *                                        raw_short, raw_first_touch
 *       zeros hide the backing file      zero_uncovers, zero_around_data
 * I2    all host clusters of compressed  compressed_start_only
 *       data are let go
 * I2    compressed data has references   share_uncounted, span_uncounted,
 *       to all its clusters, which       span_apart, share_full
 *       follow each other
 * I3    nothing is put where something   share_sector, cursor_in_discard
 *       is durable or being given back
 * I8    compressed data is written, then pieces_late
 *       published
 *       what a cut left behind is used   refuse_dirty, need_whole_cluster
 *
 * Who waits for whom, and where it takes several threads to see it, is in
 * test-unit-races.c.
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
#define STATES 400              /* of a workload */

const char *qcow2_mutant;

void
sched_point (const char *name)
{
  (void) name;
}

/* The rules, as broken, and a workload that is tried first, perhaps with the
 * image that it needs.
 */
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
  { "forget_failed_commit", "failed-write",
    "what a failed commit did not write is not written by the next one" },
  { "publish_failed", "failed-write",
    "what could not be written is published" },
  { "keep_after_failure", "failed-write",
    "a request that fails keeps its clusters" },
  { "no_restore", "failed-write",
    "what a failed write leaves in a raw data file stays there" },
  { "evict_dirty", "evict",
    "a changed table that has to go is written at once" },
  { "evict_busy", "evict",
    "a table goes while a commit writes it" },
  { "l1_first_round", "rounds",
    "L1 entries are written before the round that has their table" },
  { "free_first_round", "rounds",
    "what is let go of is used again after a commit's first round" },
  { "join_commit", "flush-in-a-commit",
    "a flush joins a commit that has begun before it" },
  { "discard_early", "reuse",
    "the space of what is let go is given back before that is durable" },
  { "no_cow", "parts",
    "the rest of a cluster that moves is not copied" },
  { "write_shared", "parts",
    "a cluster that a snapshot shares is written in place" },
  { "share_table", "parts",
    "a table that a snapshot shares is changed in place" },
  { "lock_across_io", "commit-in-a-write",
    "a lock is held while guest data is written" },
  { "no_trim_tail", "settle",
    "the unused end of the file stays" },
  { "settle_once", "settle",
    "settling commits once and no more" },
  { "settle_tables_only", "settle",
    "settling flushes nothing if only data has changed" },
  { "keep_autoclear", "parts",
    "unknown autoclear bits are left set" },
  { "clean_before_counts", "parts",
    "the dirty bit goes before the counts are repaired" },
  { "bitmap_open_late", "parts",
    "that bitmaps are in use is not durable before a change" },
  { "bitmap_table_early", "settle",
    "a bitmap's table is written along with its bits" },
  { "bitmap_close_early", "settle",
    "bitmaps are in use no more before they are durable" },
  { "raw_zero_in_table", "parts",
    "zeroing does not reach a raw data file" },
  { "raw_short", "parts",
    "a raw data file stays shorter than the disk" },
  { "zero_around_data", "parts",
    "zeroing part of a cluster does not look at the rest of it below" },
  { "zero_uncovers", "parts",
    "zeroing shows what lies in the backing file" },
  { "flush_tables_only", "parts",
    "a flush does nothing if only data has changed" },
  { "patch_in_two", "grow/reftable",
    "the refcount table's place and size in the header change by turns" },
  { "all_virgin", "parts",
    "a place that was used before counts as zeros" },
  { "raw_trim_in_table", "parts/raw-no-discard",
    "trimming does not reach a raw data file" },
  { "raw_first_touch", "parts/raw-extended",
    "the rest of a cluster that was not mapped stays in a raw data file" },
  { "compressed_start_only", "parts/compressed",
    "of a compressed cluster only the first host cluster is let go" },
  { "share_uncounted", "packed",
    "compressed data is put into a cluster without a reference of its own" },
  { "span_uncounted", "packed",
    "data that spans two clusters has a reference to the second one only" },
  { "span_apart", "packed/compress-snapshot",
    "data spans two clusters that are not next to each other" },
  { "share_full", "packed/compress-1-bit",
    "a cluster is shared more often than it can be counted" },
  { "share_sector", "packed",
    "data is put into a sector that may have been flushed" },
  { "cursor_in_discard", "packed",
    "data is put into a cluster that is being given back" },
  { "pieces_late", "commit-in-a-write/compress",
    "entries of compressed clusters are published before their data" },
  { "keep_pieces", "failed-write/compress",
    "a compressed write that fails keeps its room" },
  { "keep_failed_table", "failed-write",
    "a table that could not be written is kept" },
  { "forget_failed_link", "failed-flush/blocks",
    "after a failed flush of a new refcount block, life goes on" },
  { "forget_failed_bitmap", "failed-flush/bitmaps",
    "after a failed flush of a bitmap, life goes on" },
  { "forget_failed_header", "failed-flush/reftable",
    "after a failed flush of the header, life goes on" },
  { "refuse_reads", "failed-flush",
    "after a failed flush nothing can be read" },
  { "repair_unflushed", "failed-write/pair-dirty",
    "repaired counts are not durable when the dirty bit goes" },
  { "hole_after_zero", "empty-data-file",
    "a data file's cluster that was let go of counts as a hole" },
  { "refuse_dirty", "parts/dirty",
    "an image that was not closed cannot be opened" },
  { "need_whole_cluster", "parts",
    "a cluster that ends behind the end of the file cannot be read" },
};

static struct crash_stats total;
static uint64_t max_states;

/* This one shows in a few of thousands of states. */
static const char rare[] = "patch_in_two";

/* Returns whether it was caught. */
static bool
try_workload (const struct workload *workload, uint64_t seed)
{
  const struct crash_options options = { .seed = seed,
                                         .max_states = max_states };
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
is_first (const char *first, const struct workload *workload)
{
  const size_t n = strlen (workload->name);

  return strncmp (first, workload->name, n) == 0
    && (first[n] == '\0'
        || (first[n] == '/'
            && strcmp (first + n + 1, workload->spec->name) == 0));
}

static bool
try_directed (const char *first, bool others)
{
  struct directed_cursor at = { 0 };
  struct workload workload;
  bool caught = false;

  while (!caught && crash_directed (&at, &workload)) {
    if (is_first (first, &workload) != others)
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
  /* Nothing takes that long: mutants hang. */
  crash_hang_ns = UINT64_C (10) * 1000000000;
  setvbuf (stdout, NULL, _IOLBF, 0);
  for (size_t i = 0; i < sizeof mutants / sizeof mutants[0]; i++) {
    bool caught;

    if (argc > 1 ? strcmp (argv[1], mutants[i].name) != 0
                 : i % (3 / crash_share (3)) != 0)
      continue;
    qcow2_mutant = mutants[i].name;
    max_states = strcmp (qcow2_mutant, rare) == 0 ? 0 : STATES;
    caught = try_directed (mutants[i].first, false);
    max_states = STATES;
    if (caught || try_directed (mutants[i].first, true) || try_random ())
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
