/* qcow2ext: from guest ranges to what the tables say of them.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * l2_entry_classify interprets one entry; everything here only finds entries
 * and joins their answers into runs.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "map/mapping.h"
#include "map/l2-cache.h"
#include "map/tables-ahead.h"

static void
invalid (struct run *run, int error, const char *why)
{
  run->type = RUN_INVALID;
  run->error = error;
  run->why = why;
}

static void
classify (const struct layer *layer, uint64_t entry, uint64_t bitmap,
          uint64_t offset, struct run *run)
{
  l2_entry_classify (&layer->geo, layer_file_size (layer), entry, bitmap,
                     offset, run);
}

/* Does b, which starts where a ends, say the same? */
static bool
continues (const struct run *a, const struct run *b)
{
  switch (a->type) {
  case RUN_UNALLOCATED:
  case RUN_ZERO:
    return b->type == a->type;
  case RUN_DATA:
    return b->type == a->type && b->host == a->host + a->length
      && b->copied == a->copied;
  default:
    return false;
  }
}

/* Looks up a run in a compact table: each of its entries is sound and says one
 * thing of a whole cluster, so that many are compared at once.
 */
static void
lookup_compact (const struct layer *layer, const struct l2_table *t,
                uint64_t offset, uint64_t max, struct run *run)
{
  static const enum run_type type[] = {
    [L2_UNALLOCATED] = RUN_UNALLOCATED, [L2_ZERO] = RUN_ZERO,
    [L2_DATA] = RUN_DATA, [L2_ZERO_ALLOCATED] = RUN_ZERO,
  };
  const unsigned bits = layer->geo.cluster_bits;
  const uint64_t within = offset & (layer_cluster_size (layer) - 1);
  const uint32_t index = layer_l2_index (layer, offset);
  uint64_t same = 1;

  run->type = type[l2_table_state (t, index)];
  if (run->type == RUN_DATA) {
    run->host = offset;
    run->copied = true;
  }
  if (within + max > layer_cluster_size (layer))
    same = l2_table_same (t, index, div_round_up (within + max, bits));
  run->length = min64 ((same << bits) - within, max);
}

/* Looks up one piece of a run, from a table that is in memory. */
static void
lookup_entry (const struct layer *layer, const struct l2_table *t,
              uint64_t offset, struct run *run)
{
  uint64_t entry, bitmap;

  entry = l2_table_get (t, layer_l2_index (layer, offset), &bitmap);
  classify (layer, entry, bitmap, offset, run);
}

/* As long as the piece that follows says the same, the run grows, up to max
 * and to the end of what the table describes.
 */
static void
lookup_table (const struct layer *layer, const struct l2_table *t,
              uint64_t offset, uint64_t max, struct run *run)
{
  if (t->compact) {
    lookup_compact (layer, t, offset, max, run);
    return;
  }
  lookup_entry (layer, t, offset, run);
  while (run->length < max) {
    struct run next = { 0 };

    lookup_entry (layer, t, offset + run->length, &next);
    if (!continues (run, &next))
      return;
    run->length += next.length;
  }
  run->length = max;
}

/* Like mapping_lookup, but never looks further than one L1 entry. */
static void
lookup_l1 (struct layer *layer, uint64_t offset, uint64_t wanted,
           struct run *run)
{
  const uint32_t l1_index = layer_l1_index (layer, offset);
  const uint64_t max = min64 (wanted, layer_left_in_table (layer, offset));
  const char *why;
  int r;

  memset (run, 0, sizeof *run);
  for (;;) {
    pthread_mutex_t *reader = brlock_read (&layer->tables->lock);
    struct l2_table *t = layer->l2[l1_index];

    if (t) {
      if (!atomic_load_explicit (&t->used, memory_order_relaxed))
        atomic_store_explicit (&t->used, true, memory_order_relaxed);
      lookup_table (layer, t, offset, max, run);
    }
    pthread_mutex_unlock (reader);
    if (t)
      return;

    if (layer_l2_offset (layer, l1_index) == 0) {
      run->type = RUN_UNALLOCATED;
      run->length = max;
      return;
    }
    r = tables_load (layer, offset, wanted, &why);
    if (r < 0) {
      invalid (run, r, why);
      run->length = max;
      return;
    }
  }
}

void
mapping_lookup (struct layer *layer, uint64_t offset, uint64_t max,
                struct run *run)
{
  if (layer->format == IMAGE_RAW) {
    *run = (struct run) { .type = RUN_DATA, .length = max, .host = offset };
    return;
  }

  lookup_l1 (layer, offset, max, run);

  /* Go on only where the end of a table cut the run. */
  while (run->length < max
         && ((offset + run->length) & (layer_table_reach (layer) - 1)) == 0) {
    struct run next;

    lookup_l1 (layer, offset + run->length, max - run->length, &next);
    if (!continues (run, &next))
      break;
    run->length += next.length;
  }
}

int
mapping_get_entry (struct layer *layer, uint64_t offset,
                   struct mapping_entry *e)
{
  const uint32_t l1_index = layer_l1_index (layer, offset);
  const uint32_t index = layer_l2_index (layer, offset);
  const uint64_t start = round_down (offset, layer_subcluster_size (layer));
  const char *why;
  int r;

  memset (e, 0, sizeof *e);
  for (;;) {
    pthread_mutex_t *reader = brlock_read (&layer->tables->lock);
    struct l2_table *t = layer->l2[l1_index];

    if (t)
      e->entry = l2_table_get (t, index, &e->bitmap);
    pthread_mutex_unlock (reader);
    if (t || layer_l2_offset (layer, l1_index) == 0)
      break;

    r = l2_cache_load (layer, l1_index, &why);
    if (r < 0) {
      invalid (&e->run, r, why);
      return mapping_report (layer, offset, &e->run);
    }
  }

  classify (layer, e->entry, e->bitmap, start, &e->run);
  if (e->run.type == RUN_INVALID)
    return mapping_report (layer, offset, &e->run);
  return 0;
}

int
mapping_report (struct layer *layer, uint64_t offset, const struct run *run)
{
  report_limited (&layer->limit,
                  "%s: guest offset 0x%" PRIx64 " cannot be read: %s; "
                  "see what qemu-img check says of the image",
                  layer->file->name, offset,
                  run->why ? run->why : strerror (-run->error));
  return run->error;
}
