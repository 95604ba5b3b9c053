/* qcow2ext: which sectors of L1 and L2 tables a commit writes.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An entry that is set reaches the file, wherever in a table it is, and nothing
 * is written but the sector that holds it: a commit of one entry in a table of
 * two megabytes is not two megabytes.
 */

#include "build-config.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "map/l1-table.h"
#include "map/l2-cache.h"
#include "store-memory.h"

#define SECTOR MEMORY_SECTOR

static struct memory_file file;
static struct memory_log changes;
static struct store *store;

/* Writes what is in a batch, in one stage.  Returns how many writes that was,
 * of which the last one is *op.
 */
static size_t
write_batch (struct batch *batch, enum batch_stage stage,
             const struct memory_op **op)
{
  static struct report_limit limit = REPORT_LIMIT_INIT;
  const size_t before = changes.count;

  CHECK (batch_is_empty (batch, BATCH_STAGES - 1 - stage));
  CHECK (batch_write (batch, stage, store, &limit) == 0);
  batch_free (batch);
  *op = changes.count > before ? &changes.op[changes.count - 1] : NULL;
  return changes.count - before;
}

/* --- L2 --- */

static void
prepare_layer (struct layer *layer, unsigned cluster_bits, bool extended,
               bool external)
{
  *layer = (struct layer) {
    .file = store,
    .geo = { .version = 3, .cluster_bits = cluster_bits,
             .subcluster_bits = cluster_bits - (extended ? 5 : 0),
             .l2_bits = cluster_bits - (extended ? 4 : 3),
             .extended_l2 = extended, .has_data_file = external },
  };
}

/* One entry after the other, each in a commit of its own. */
static void
test_l2 (unsigned cluster_bits, bool extended, bool external)
{
  const uint64_t cluster = UINT64_C (1) << cluster_bits;
  const uint32_t width = extended ? 16 : 8, l1_index = 3;
  const uint32_t entries = cluster / width;
  const uint64_t host = 5 * cluster;
  struct layer layer;
  struct l2_table *t;

  prepare_layer (&layer, cluster_bits, extended, external);
  memory_file_resize (&file, 0);
  memory_file_resize (&file, host + cluster);
  for (uint32_t i = 0; i < entries; i++) {
    const uint64_t at = host + i * width;
    const uint64_t entry = QCOW2_COPIED
      | ((uint64_t) l1_index * entries + i) << cluster_bits;
    const struct memory_op *op;
    struct batch batch;
    be64 words[2];

    CHECK (l2_table_read (&layer, l1_index, host, &t) == 0);
    CHECK (t->compact == (external && !extended));
    CHECK (l2_table_prepare (t) == 0);
    l2_table_set (t, i, entry, i + 1);
    batch_init (&batch);
    CHECK (l2_table_collect (t, &batch) == 0);
    CHECK (write_batch (&batch, BATCH_POINTERS, &op) == 1);
    CHECK (op->offset == at / SECTOR * SECTOR && op->length == SECTOR);
    memcpy (words, file.bytes + at, sizeof words);
    CHECK (be64_get (words[0]) == entry);
    CHECK (!extended || be64_get (words[1]) == i + 1);
    l2_table_free (t);
  }
}

/* A new table is written as a whole, before what refers to it. */
static void
test_new_l2 (void)
{
  const uint64_t host = 5 * 4096;
  const struct memory_op *op;
  struct layer layer;
  struct l2_table *t;
  struct batch batch;

  prepare_layer (&layer, 12, false, false);
  t = l2_table_new (&layer, 0, host);
  CHECK (t != NULL);
  l2_table_set (t, 7, QCOW2_L2_ZERO, 0);
  batch_init (&batch);
  CHECK (l2_table_collect (t, &batch) == 0);
  CHECK (write_batch (&batch, BATCH_NEW, &op) == 1);
  CHECK (op->offset == host && op->length == 4096);
  l2_table_free (t);
}

/* A commit that takes several rounds fails in the first one: the next commit
 * writes all tables, also those that were still to come.
 */
static void
test_rounds (void)
{
  enum { TABLES = 5 };
  struct l2_table *slots[TABLES] = { NULL };
  const struct memory_op *op;
  size_t written = 0;
  struct layer layer;
  struct batch batch;
  int r;

  prepare_layer (&layer, 9, false, false);
  layer.l2 = slots;
  layer.tables = l2_cache_new (1);
  CHECK (layer.tables != NULL);
  for (uint32_t i = 0; i < TABLES; i++)
    CHECK (l2_cache_create (&layer, i, (10 + i) * SECTOR) != NULL);
  l2_cache_begin (layer.tables);
  batch_init (&batch);
  CHECK (l2_cache_collect (layer.tables, &batch) == COMMIT_MORE);
  batch_free (&batch);
  l2_cache_done (layer.tables, COMMIT_NOTHING);

  l2_cache_begin (layer.tables);
  do {
    batch_init (&batch);
    r = l2_cache_collect (layer.tables, &batch);
    CHECK (r == 0 || r == COMMIT_MORE);
    written += write_batch (&batch, BATCH_NEW, &op);
    l2_cache_done (layer.tables, COMMIT_ALL);
  } while (r == COMMIT_MORE);
  CHECK (written == TABLES);
  CHECK (layer.tables->dirty == NULL);
  l2_cache_drop (&layer);
  l2_cache_free (layer.tables);
}

/* --- L1 --- */

/* The table ends within a sector, which may hold something else behind it. */
#define L1_OFFSET 8192
#define L1_ENTRIES 1100
#define L1_BYTES (L1_ENTRIES * 8)

static void
collect_l1 (struct l1_table *l1, struct batch *batch)
{
  batch_init (batch);
  CHECK (l1_table_collect (l1, batch) == 0);
  l1_table_clean (l1);
}

static void
test_l1 (void)
{
  struct layer layer = {
    .file = store, .l1_entries = L1_ENTRIES,
    .header.l1_offset = L1_OFFSET,
  };
  const struct memory_op *op;
  struct l1_table l1;
  struct batch batch;

  layer.l1 = calloc (L1_ENTRIES, sizeof *layer.l1);
  CHECK (layer.l1 != NULL && l1_table_init (&l1, &layer) == 0);
  /* The books are a bit for each sector. */
  CHECK (malloc_usable_size (l1.dirty) < 256);

  for (uint32_t i = 0; i < L1_ENTRIES; i++) {
    const uint64_t start = i * 8 / SECTOR * SECTOR;

    l1_table_set (&l1, i, (i + 1) << 9);
    collect_l1 (&l1, &batch);
    CHECK (write_batch (&batch, BATCH_POINTERS, &op) == 1);
    CHECK (op->offset == L1_OFFSET + start);
    CHECK (op->length == min64 (SECTOR, L1_BYTES - start));
    l1_table_done (&l1, COMMIT_ALL);
    CHECK (!l1.is_dirty);
    collect_l1 (&l1, &batch);
    CHECK (write_batch (&batch, BATCH_POINTERS, &op) == 0);
    l1_table_done (&l1, COMMIT_ALL);
  }
  CHECK (memcmp (file.bytes + L1_OFFSET, layer.l1, L1_BYTES) == 0);

  /* After a commit that failed all of it is written. */
  l1_table_set (&l1, 0, 1 << 9);
  collect_l1 (&l1, &batch);
  batch_free (&batch);
  l1_table_done (&l1, COMMIT_NOTHING);
  CHECK (l1.is_dirty);
  collect_l1 (&l1, &batch);
  CHECK (write_batch (&batch, BATCH_POINTERS, &op) == 1);
  CHECK (op->offset == L1_OFFSET && op->length == L1_BYTES);
  l1_table_done (&l1, COMMIT_ALL);
  l1_table_destroy (&l1);
  free (layer.l1);
}

int
main (void)
{
  memory_log_init (&changes);
  store = store_memory_new (&file, &changes, MEMORY_IMAGE, false);
  test_l2 (9, false, false);
  test_l2 (13, false, false);
  test_l2 (13, false, true);
  test_l2 (14, true, false);
  test_l2 (14, true, true);
  test_new_l2 ();
  test_rounds ();
  test_l1 ();
  store_close (store);
  memory_log_clear (&changes);
  memory_file_free (&file);
  return EXIT_SUCCESS;
}
