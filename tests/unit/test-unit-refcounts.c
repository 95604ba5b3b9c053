/* qcow2ext: refcount blocks in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The store makes up what is read from it: a table of a quarter of the entries
 * that a table may have, and blocks that say that all clusters are in use.  So
 * the image is large without anything that holds it.
 *
 * How long it takes is measured in CPU time of this process, which a busy
 * machine does not change much, and the limit is far from what is needed.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "base/cleanup.h"
#include "space/allocator.h"
#include "space/refcounts.h"
#include "store-memory.h"

#define CLUSTER_BITS 9
#define CLUSTER (UINT64_C (1) << CLUSTER_BITS)
#define PER_BLOCK (CLUSTER / 2)
#define TABLE CLUSTER           /* where the table is, bytes */
#define TABLE_BYTES (QCOW2_MAX_REFTABLE_BYTES / 4)
#define BLOCKS (TABLE_BYTES / 8)
#define FILE_SIZE (BLOCKS * PER_BLOCK * CLUSTER)
#define CACHED ((8 << 20) / CLUSTER) /* blocks that may stay in memory */

static uint64_t reads;

static uint64_t
block_offset (uint64_t i)
{
  return TABLE + TABLE_BYTES + i * CLUSTER;
}

static int
made_up_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  be64 *entry = buf;

  (void) s;
  reads++;
  if (offset >= TABLE + TABLE_BYTES)
    for (size_t i = 0; i < count / 2; i++)
      ((be16 *) buf)[i] = be16_make (1);
  else
    for (size_t i = 0; i < count / sizeof *entry; i++)
      entry[i] = be64_make (block_offset ((offset - TABLE) / 8 + i));
  return 0;
}

static int
made_up_size (struct store *s, uint64_t *size)
{
  (void) s;
  *size = FILE_SIZE;
  return 0;
}

static const struct store_ops ops = {
  .pread = made_up_pread, .get_size = made_up_size,
};
static struct store store = { .ops = &ops, .name = (char *) "made-up" };
static struct header header = {
  .cluster_bits = CLUSTER_BITS, .refcount_order = 4, .version = 3,
  .reftable_offset = TABLE, .reftable_clusters = TABLE_BYTES / CLUSTER,
};
static struct health health = { .file = &store, .header = &header };
static struct metadata_map metadata;
static _Atomic uint64_t file_size;
static struct refcounts rc;

static double
cpu_seconds (void)
{
  struct timespec t;

  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t
count_in (uint64_t block)
{
  uint64_t count;

  CHECK (refcounts_get (&rc, block * PER_BLOCK, &count) == 0);
  return count;
}

/* Looks at a block; whether it had to be read. */
static bool
is_read (uint64_t block)
{
  const uint64_t before = reads;

  count_in (block);
  return reads != before;
}

/* Every block of the file is looked at once, as in looking for a cluster that
 * is free.
 */
static void
test_all_blocks (void)
{
  const double start = cpu_seconds ();
  double seconds;
  uint64_t offset, got;
  bool zero;

  CHECK (allocator_take (&rc, 1, &offset, &got, &zero) == -ENOSPC);
  seconds = cpu_seconds () - start;
  printf ("%" PRIu64 " refcount blocks: %.1f seconds of CPU time\n",
          (uint64_t) BLOCKS, seconds);
  CHECK (rc.blocks_cached <= CACHED);
  CHECK (seconds < 30);
}

static void
test_order (void)
{
  const uint64_t n = CACHED;

  for (uint64_t i = 0; i < n; i++)
    count_in (i);
  CHECK (!is_read (0));         /* which makes it the newest */
  for (uint64_t i = n; i < n + n / 2; i++)
    count_in (i);
  refcounts_trim_cache (&rc);
  CHECK (rc.blocks_cached == n);
  CHECK (!is_read (0));
  CHECK (is_read (1));
  CHECK (!is_read (n - 1));
}

/* What is not on disk does not go, nor what a commit has; then it may. */
static void
test_changed (enum commit_progress progress)
{
  const struct commit_source source = refcounts_source (&rc);
  const uint64_t far = BLOCKS / 2;
  struct batch b;

  for (uint64_t i = 0; i < 3; i++)
    CHECK (refcounts_drop (&rc, i * PER_BLOCK * CLUSTER, 1) == 0);
  for (unsigned step = 0; step < 4; step++) {
    for (uint64_t i = far; i < far + CACHED + 3; i++)
      count_in (i);
    refcounts_trim_cache (&rc);
    CHECK (rc.blocks_cached == CACHED);
    for (uint64_t i = 0; i < 3; i++) {
      const bool in_memory = rc.block[i] != NULL;
      const bool may_go =
        step == 3 || (step == 2 && progress == COMMIT_ALL && i != 1);

      CHECK (in_memory != may_go);
      CHECK (count_in (i) == may_go);
    }
    switch (step) {
    case 0:
      batch_init (&b);
      CHECK (source.collect (source.self, &b) == 0);
      break;
    case 1:                     /* changed again meanwhile */
      refblock_set (&rc, rc.block[1], 1, 2);
      source.done (source.self, progress);
      batch_free (&b);
      break;
    case 2:
      batch_init (&b);
      CHECK (source.collect (source.self, &b) == 0);
      source.done (source.self, COMMIT_ALL);
      batch_free (&b);
      break;
    }
  }
}

/* --- new blocks --- */

/* An empty image with a table for 64 MiB, and one block. */
#define SMALL_TABLE (8 * CLUSTER)

static void
make_small (struct memory_file *f)
{
  const uint64_t block = TABLE + SMALL_TABLE;
  const be64 entry = be64_make (block);
  const be16 one = be16_make (1);

  memory_file_resize (f, block + CLUSTER);
  memory_file_write (f, &entry, sizeof entry, TABLE);
  for (uint64_t c = 0; c <= block / CLUSTER; c++)
    memory_file_write (f, &one, sizeof one, block + c * sizeof one);
}

/* Entries of the table are written when the blocks are durable to which they
 * refer, and those of one write lie in one sector: all of them are on disk, or
 * none.
 */
static void
check_links (const struct memory_log *log)
{
  CLEANUP_FREE uint8_t *durable = calloc (1, 64 << 20 >> CLUSTER_BITS);
  CLEANUP_FREE uint8_t *written = calloc (1, 64 << 20 >> CLUSTER_BITS);

  for (size_t i = 0; i < log->count; i++) {
    const struct memory_op *op = &log->op[i];

    if (op->kind == MEMORY_FLUSH) {
      memcpy (durable, written, 64 << 20 >> CLUSTER_BITS);
      continue;
    }
    if (op->kind != MEMORY_WRITE)
      continue;
    if (op->offset >= TABLE + SMALL_TABLE) {
      for (uint64_t o = 0; o < op->length; o += CLUSTER)
        written[(op->offset + o) / CLUSTER] = 1;
      continue;
    }
    CHECK (op->offset >= TABLE);
    CHECK (op->offset / 512 == (op->offset + op->length - 1) / 512);
    for (uint64_t o = 0; o < op->length; o += 8) {
      be64 entry;

      memcpy (&entry, op->data + o, sizeof entry);
      CHECK (durable[be64_get (entry) / CLUSTER]);
    }
  }
}

/* A file that grows by 48 MiB. */
static void
test_new_blocks (void)
{
  struct memory_file file = { 0 };
  struct memory_log log;
  struct header h = header;
  struct health small_health = { .header = &h };
  struct refcounts small;
  uint64_t taken = 0, flushes = 0, offset, got, count;
  bool zero;

  make_small (&file);
  memory_log_init (&log);
  small_health.file = store_memory_new (&file, &log, MEMORY_IMAGE, false);
  h.reftable_clusters = SMALL_TABLE / CLUSTER;
  metadata_map_init (&metadata, CLUSTER_BITS);
  refcounts_init (&small, &small_health, &metadata, &file_size);
  small.end.can_grow = true;
  CHECK (refcounts_open (&small) == 0);
  {
    LOCK_FOR_SCOPE (&small.lock);
    for (; taken < 48 << 20; taken += got * CLUSTER) {
      CHECK (allocator_take (&small, 64, &offset, &got, &zero) == 0);
      CHECK (!metadata_map_overlaps (&metadata, offset, got * CLUSTER));
    }
    for (uint64_t i = 1; i < small.entries; i++) {
      const uint64_t host = be64_get (small.table[i]);

      if (host == 0)
        continue;
      CHECK (metadata_map_overlaps (&metadata, host, CLUSTER));
      CHECK (refcounts_get (&small, host / CLUSTER, &count) == 0);
      CHECK (count == 1);
    }
  }
  check_links (&log);
  for (size_t i = 0; i < log.count; i++)
    flushes += log.op[i].kind == MEMORY_FLUSH;
  printf ("%" PRIu64 " flushes while a file grows by 48 MiB\n", flushes);
  CHECK (flushes < 60);
  refcounts_destroy (&small);
  metadata_map_destroy (&metadata);
  store_close (small_health.file);
  memory_log_clear (&log);
  memory_file_free (&file);
}

int
main (void)
{
  metadata_map_init (&metadata, CLUSTER_BITS);
  refcounts_init (&rc, &health, &metadata, &file_size);
  rc.end.can_grow = false;
  CHECK (refcounts_open (&rc) == 0);
  {
    LOCK_FOR_SCOPE (&rc.lock);
    test_order ();
  }
  test_changed (COMMIT_ALL);
  test_changed (COMMIT_NOTHING);
  {
    LOCK_FOR_SCOPE (&rc.lock);
    test_all_blocks ();
  }
  refcounts_destroy (&rc);
  metadata_map_destroy (&metadata);
  test_new_blocks ();
  return EXIT_SUCCESS;
}
