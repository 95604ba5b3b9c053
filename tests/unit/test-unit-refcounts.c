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

/* Which call from now on finds no memory; 0: none. */
static unsigned no_memory_at;

int __wrap_metadata_map_add (struct metadata_map *m, uint64_t cluster);
int __real_metadata_map_add (struct metadata_map *m, uint64_t cluster);

int
__wrap_metadata_map_add (struct metadata_map *m, uint64_t cluster)
{
  if (no_memory_at && --no_memory_at == 0)
    return -ENOMEM;
  return __real_metadata_map_add (m, cluster);
}

/* Without memory, none of the clusters becomes metadata. */
static void
test_no_memory (struct refcounts *small)
{
  uint64_t i = 0;

  while (be64_get (small->table[i]) != 0)
    i++;
  no_memory_at = 3;
  CHECK (refcounts_create_block (small, i) == -ENOMEM && no_memory_at == 0);
  CHECK (be64_get (small->table[i]) == 0);
  CHECK (!metadata_map_overlaps (small->metadata, i * PER_BLOCK * CLUSTER,
                                 PER_BLOCK * CLUSTER));
}

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
    test_no_memory (&small);
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

/* --- a larger table --- */

/* What is written past the end of the image that is made up. */
static uint8_t *grown;
static const uint64_t grown_size = TABLE_BYTES * 2;
static uint64_t grown_end = FILE_SIZE + grown_size;

static int
grown_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  if (offset < FILE_SIZE)
    return made_up_pread (s, buf, count, offset);
  CHECK (offset - FILE_SIZE + count <= grown_size);
  memcpy (buf, grown + (offset - FILE_SIZE), count);
  return 0;
}

static int
grown_pwrite (struct store *s, const void *buf, size_t count, uint64_t offset)
{
  (void) s;
  if (offset < FILE_SIZE) {
    CHECK (offset + count <= CLUSTER); /* the header */
    return 0;
  }
  CHECK (offset - FILE_SIZE + count <= grown_size);
  memcpy (grown + (offset - FILE_SIZE), buf, count);
  return 0;
}

static int
grown_flush (struct store *s)
{
  (void) s;
  return 0;
}

static int
grown_get_size (struct store *s, uint64_t *size)
{
  (void) s;
  *size = grown_end;
  return 0;
}

/* Each block is in the slot of its number.  What is new counts itself, and
 * nothing else.
 */
static void
check_grown (struct refcounts *r)
{
  uint64_t c = FILE_SIZE / CLUSTER, count, cached = 0;

  for (uint64_t i = 0; i < r->entries; i++) {
    CHECK (r->block[i] == NULL || r->block[i]->number == i);
    cached += r->block[i] != NULL;
  }
  CHECK (r->blocks_cached == cached);
  for (; c < r->offset / CLUSTER + r->clusters; c++)
    CHECK (refcounts_get (r, c, &count) == 0 && count == 1);
  CHECK (refcounts_get (r, c, &count) == 0 && count == 0);
  CHECK (refcounts_get (r, c - BLOCKS * PER_BLOCK / 2, &count) == 0);
  CHECK (count == 1);
}

/* There is room for half as much again, so that this is rare.  It takes more
 * than one block to count the new table.
 */
static void
test_larger_table (void)
{
  static const struct store_ops grown_ops = {
    .pread = grown_pread, .pwrite = grown_pwrite, .flush = grown_flush,
    .get_size = grown_get_size,
  };
  struct store grown_store = { .ops = &grown_ops, .name = store.name };
  struct header h = header;
  struct health grown_health = { .file = &grown_store, .header = &h };
  struct refcounts larger;
  uint64_t area;
  int r;

  grown = calloc (1, grown_size);
  CHECK (grown != NULL);
  metadata_map_init (&metadata, CLUSTER_BITS);
  refcounts_init (&larger, &grown_health, &metadata, &file_size);
  larger.end.can_grow = true;
  CHECK (refcounts_open (&larger) == 0);
  CHECK (refcounts_grow_table (&larger, BLOCKS) == 0);
  CHECK (larger.entries >= BLOCKS + BLOCKS / 2);
  CHECK (larger.block[BLOCKS + 1] != NULL);
  check_grown (&larger);
  refcounts_destroy (&larger);

  /* As the file has it. */
  CHECK (h.reftable_offset > FILE_SIZE);
  refcounts_init (&larger, &grown_health, &metadata, &file_size);
  CHECK (refcounts_open (&larger) == 0);
  check_grown (&larger);
  refcounts_destroy (&larger);
  metadata_map_destroy (&metadata);

  /* A device may be just large enough for that, and has to be.  What is used
   * must not have a count that is not there.
   */
  area = h.reftable_offset / CLUSTER + h.reftable_clusters
    - FILE_SIZE / CLUSTER;
  for (unsigned i = 0; i < 3; i++) {
    h = header;
    grown_health = (struct health) { .file = &grown_store, .header = &h };
    grown_end = FILE_SIZE + (area - (i == 1)) * CLUSTER;
    metadata_map_init (&metadata, CLUSTER_BITS);
    refcounts_init (&larger, &grown_health, &metadata, &file_size);
    CHECK (refcounts_open (&larger) == 0);
    if (i == 2)
      CHECK (metadata_map_add (&metadata, FILE_SIZE / CLUSTER + 3) == 0);
    r = refcounts_grow_table (&larger, BLOCKS);
    CHECK (r == (i == 0 ? 0 : i == 1 ? -ENOSPC : -EIO));
    refcounts_destroy (&larger);
    metadata_map_destroy (&metadata);
  }
  free (grown);
}

/* --- counts that are set --- */

struct small {
  struct memory_file file;
  struct header header;
  struct health health;
  struct metadata_map metadata;
  struct refcounts rc;
};

/* A small image, of so many clusters, on a device. */
static void
open_small (struct small *s, unsigned order, uint64_t clusters)
{
  *s = (struct small) { .header = header, .health.header = &s->header };
  make_small (&s->file);
  memory_file_resize (&s->file, clusters * CLUSTER);
  s->header.refcount_order = order;
  s->header.reftable_clusters = SMALL_TABLE / CLUSTER;
  s->health.file = store_memory_new (&s->file, NULL, MEMORY_IMAGE, false);
  metadata_map_init (&s->metadata, CLUSTER_BITS);
  refcounts_init (&s->rc, &s->health, &s->metadata, &file_size);
  CHECK (refcounts_open (&s->rc) == 0);
}

static void
close_small (struct small *s)
{
  refcounts_destroy (&s->rc);
  metadata_map_destroy (&s->metadata);
  store_close (s->health.file);
  memory_file_free (&s->file);
}

/* The file has the table, or is refused; a table that is let go of is opened
 * again as if for the first time.
 */
static void
test_open (void)
{
  const uint64_t end = TABLE + SMALL_TABLE;
  uint64_t count;
  struct small s;

  open_small (&s, 4, end / CLUSTER + 1);
  for (unsigned i = 0; i < 2; i++) {
    CHECK (s.rc.blocks_cached == 0);
    CHECK (refcounts_get (&s.rc, 0, &count) == 0 && count == 1);
    CHECK (s.rc.blocks_cached == 1);
    refcounts_close (&s.rc);
    CHECK (refcounts_open (&s.rc) == 0);
  }
  for (unsigned i = 0; i < 4; i++) {
    static const uint64_t sizes[] = { 0, TABLE, TABLE + 1, TABLE - 1 };

    refcounts_close (&s.rc);
    memory_file_resize (&s.file, i == 0 ? end - 1 : sizes[i]);
    CHECK (refcounts_open (&s.rc) == -EIO);
  }
  close_small (&s);
}

/* A count that does not fit into its bits is refused, not cut off. */
static void
test_repair (unsigned order)
{
  const uint64_t bits = UINT64_C (1) << order;
  const uint32_t most = bits < 32 ? (UINT32_C (1) << bits) - 1 : UINT32_MAX;
  uint32_t counts[10] = { [3] = most, [5] = 1 };
  uint64_t count;
  struct small s;

  open_small (&s, order, 10);
  CHECK (refcounts_repair (&s.rc, counts, 10) == 0);
  for (uint64_t c = 0; c < 10; c++) {
    CHECK (refcounts_get (&s.rc, c, &count) == 0);
    CHECK (count == counts[c]);
  }
  if (bits < 32) {
    counts[3] = most + 1;
    CHECK (refcounts_repair (&s.rc, counts, 10) == -ENOTSUP);
    CHECK (refcounts_get (&s.rc, 3, &count) == 0);
    CHECK (count == most);
  }
  close_small (&s);
}

/* A device keeps its size: what is free in it ends there, and with that what
 * can be taken.
 */
static void
test_device (void)
{
  const uint64_t clusters = TABLE / CLUSTER + SMALL_TABLE / CLUSTER + 1;
  struct small s;
  uint64_t offset, got;
  bool zero;

  open_small (&s, 4, clusters);
  CHECK (allocator_last_free (&s.rc, &offset) == -ENOSPC);
  CHECK (allocator_alloc (&s.rc, 1, &offset, &got, &zero) == -ENOSPC);
  close_small (&s);

  open_small (&s, 4, clusters + 5);
  CHECK (allocator_last_free (&s.rc, &offset) == 0);
  CHECK (offset == (clusters + 4) * CLUSTER);
  CHECK (metadata_map_add (&s.metadata, clusters + 4) == 0);
  refblock_set (&s.rc, s.rc.block[0], clusters + 3, 1);
  CHECK (allocator_last_free (&s.rc, &offset) == 0);
  CHECK (offset == (clusters + 2) * CLUSTER);
  CHECK (allocator_alloc (&s.rc, 9, &offset, &got, &zero) == 0);
  CHECK (offset == clusters * CLUSTER && got == 3 && !zero);
  metadata_map_remove (&s.metadata, clusters + 4);
  CHECK (allocator_alloc (&s.rc, 9, &offset, &got, &zero) == 0);
  CHECK (offset == (clusters + 4) * CLUSTER && got == 1);
  CHECK (allocator_alloc (&s.rc, 1, &offset, &got, &zero) == -ENOSPC);
  close_small (&s);
}

/* New blocks lie within the device, and no more are made than count clusters of
 * it: all others can be taken.
 */
static void
test_device_filled (void)
{
  const uint64_t used = TABLE / CLUSTER + SMALL_TABLE / CLUSTER + 1;
  const uint64_t clusters = 2 * PER_BLOCK + 2; /* for two more blocks */
  uint64_t taken = 0, offset, got;
  struct small s;
  bool zero;
  int r;

  open_small (&s, 4, clusters);
  while ((r = allocator_alloc (&s.rc, 50, &offset, &got, &zero)) == 0) {
    CHECK (offset + got * CLUSTER <= clusters * CLUSTER);
    taken += got;
  }
  CHECK (r == -ENOSPC);
  CHECK (taken == clusters - used - 2);
  CHECK (s.file.size == clusters * CLUSTER);
  close_small (&s);
}

/* What was given back at the end is cut off, and is as new when the file grows
 * again.
 */
static void
test_tail (void)
{
  const uint64_t clusters = TABLE / CLUSTER + SMALL_TABLE / CLUSTER + 1;
  uint64_t offset, got;
  struct small s;
  bool zero;

  open_small (&s, 4, clusters);
  s.rc.end.can_grow = true;
  for (unsigned i = 0; i < 2; i++) {
    CHECK (allocator_alloc (&s.rc, 5, &offset, &got, &zero) == 0);
    CHECK (offset == clusters * CLUSTER && got == 5 && zero);
    CHECK (file_end_size (&s.rc.end) == (clusters + 5) * CLUSTER);
    CHECK (allocator_trim_tail (&s.rc) == 0);
    CHECK (s.file.size == (clusters + 5) * CLUSTER);
    allocator_give_back (&s.rc, offset, got);
    CHECK (allocator_trim_tail (&s.rc) == 0);
    CHECK (s.file.size == clusters * CLUSTER);
    CHECK (file_end_size (&s.rc.end) == clusters * CLUSTER);
  }
  close_small (&s);

  /* The last cluster that is in use is made whole; one that is not is left as
   * it was.
   */
  for (unsigned i = 0; i < 2; i++) {
    const uint64_t used = clusters + 1, size = used * CLUSTER - 100;
    uint64_t count;

    open_small (&s, 4, used);
    refcounts_close (&s.rc);
    memory_file_resize (&s.file, size);
    CHECK (refcounts_open (&s.rc) == 0);
    s.rc.end.can_grow = true;
    CHECK (refcounts_get (&s.rc, clusters, &count) == 0 && count == 0);
    refblock_set (&s.rc, s.rc.block[0], clusters, i == 0);
    s.rc.free_hint = used;
    CHECK (allocator_alloc (&s.rc, 5, &offset, &got, &zero) == 0);
    CHECK (offset == used * CLUSTER && got == 5);
    allocator_give_back (&s.rc, offset, got);
    memory_file_resize (&s.file, (used + 5) * CLUSTER);
    CHECK (allocator_trim_tail (&s.rc) == 0);
    CHECK (s.file.size == (i ? size : used * CLUSTER));
    close_small (&s);
  }
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
  test_larger_table ();
  for (unsigned order = 0; order <= 6; order++)
    test_repair (order);
  test_open ();
  test_device ();
  test_device_filled ();
  test_tail ();
  return EXIT_SUCCESS;
}
