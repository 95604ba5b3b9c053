/* qcow2ext: the set of host clusters that hold metadata.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "space/metadata-map.h"

void
metadata_map_init (struct metadata_map *m, unsigned cluster_bits)
{
  memset (m, 0, sizeof *m);
  m->cluster_bits = cluster_bits;
  m->first_lost = UINT64_MAX;
  brlock_init (&m->lock);
  cluster_set_init (&m->single);
  cluster_set_init (&m->snapshot_tables);
}

void
metadata_map_clear (struct metadata_map *m)
{
  free (m->fixed);
  m->fixed = NULL;
  m->nr_fixed = m->fixed_room = 0;
  m->first_lost = UINT64_MAX;
  cluster_set_clear (&m->single);
  cluster_set_clear (&m->snapshot_tables);
}

void
metadata_map_destroy (struct metadata_map *m)
{
  metadata_map_clear (m);
  brlock_destroy (&m->lock);
}

/* Does one of the fixed structures touch the clusters first to last?  Mostly
 * all of them are at the beginning of the file.
 */
static bool
fixed_overlaps (const struct metadata_map *m, uint64_t first, uint64_t last)
{
  size_t low = 0, high = m->nr_fixed;

  if (high == 0 || first > m->fixed[high - 1].last)
    return false;
  /* The first one that does not end before. */
  while (low < high) {
    const size_t middle = low + (high - low) / 2;

    if (m->fixed[middle].last < first)
      low = middle + 1;
    else
      high = middle;
  }
  return m->fixed[low].first <= last;
}

bool
metadata_map_overlaps (struct metadata_map *m, uint64_t offset,
                       uint64_t length)
{
  const uint64_t first = offset >> m->cluster_bits;
  const uint64_t last = (offset + length - 1) >> m->cluster_bits;
  pthread_mutex_t *reader;
  bool found = false;

  if (fixed_overlaps (m, first, last))
    return true;
  reader = brlock_read (&m->lock);
  for (uint64_t c = first; c <= last && !found; c++)
    found = cluster_set_contains (&m->single, c);
  pthread_mutex_unlock (reader);
  return found;
}

int
metadata_map_add (struct metadata_map *m, uint64_t cluster)
{
  CLEANUP_FREE uint64_t *old = NULL;
  int r;

  brlock_write (&m->lock);
  r = cluster_set_reserve (&m->single, &old);
  if (r == 0)
    cluster_set_insert (&m->single, cluster);
  brlock_write_unlock (&m->lock);
  return r;
}

void
metadata_map_remove (struct metadata_map *m, uint64_t cluster)
{
  brlock_write (&m->lock);
  cluster_set_remove (&m->single, cluster);
  brlock_write_unlock (&m->lock);
}

bool
metadata_map_is_snapshot_table (const struct metadata_map *m,
                                uint64_t cluster)
{
  return cluster_set_contains (&m->snapshot_tables, cluster);
}

/* --- building --- */

struct building {
  struct metadata_map *map;
  const struct metadata_source *source;
  struct health *health;
};

static int
fail_overlap (const struct building *b)
{
  return health_mark_corrupt (b->health, "two metadata structures overlap");
}

static bool
is_fixed (enum metadata_kind kind)
{
  switch (kind) {
  case METADATA_REFCOUNT_TABLE:
  case METADATA_REFCOUNT_BLOCK:
  case METADATA_BITMAP:
  case METADATA_L2:
    return false;
  default:
    return true;
  }
}

static int
add_fixed (struct metadata_map *m, uint64_t offset, uint64_t length)
{
  if (m->nr_fixed == m->fixed_room) {
    const size_t room = m->fixed_room ? 2 * m->fixed_room : 16;
    void *bigger = realloc (m->fixed, room * sizeof m->fixed[0]);

    if (bigger == NULL)
      return -ENOMEM;
    m->fixed = bigger;
    m->fixed_room = room;
  }
  m->fixed[m->nr_fixed++] = (struct cluster_range) {
    .first = offset >> m->cluster_bits,
    .last = (offset + length - 1) >> m->cluster_bits,
  };
  return 0;
}

/* The first walk goes over what is fixed, and does not read tables: that comes
 * when it is known that no two of them share what they claim.
 */
static int
claim_fixed (void *opaque, const struct metadata_range *range)
{
  const struct building *b = opaque;
  const uint64_t size = b->source->file_size;
  struct metadata_map *m = b->map;
  int r;

  if (range->snapshot
      && (range->length > QCOW2_MAX_L1_BYTES || range->offset > size
          || range->length > size - range->offset
          || range->offset & ((UINT64_C (1) << m->cluster_bits) - 1)))
    return health_mark_corrupt (b->health,
                                "the L1 table of a snapshot is misplaced");
  if (is_fixed (range->kind) && range->length
      && (r = add_fixed (m, range->offset, range->length)) < 0)
    return r;
  return range->kind == METADATA_SNAPSHOT_TABLE
    || range->kind == METADATA_BITMAP_DIRECTORY ? 0 : METADATA_SKIP;
}

static int
compare_ranges (const void *a, const void *b)
{
  const uint64_t x = ((const struct cluster_range *) a)->first;
  const uint64_t y = ((const struct cluster_range *) b)->first;

  return x < y ? -1 : x > y;
}

static int
sort_fixed (const struct building *b)
{
  const struct metadata_map *m = b->map;

  if (m->nr_fixed)
    qsort (m->fixed, m->nr_fixed, sizeof m->fixed[0], compare_ranges);
  for (size_t i = 1; i < m->nr_fixed; i++)
    if (m->fixed[i].first <= m->fixed[i - 1].last)
      return fail_overlap (b);
  return 0;
}

/* Snapshots share L2 tables, with each other and with the active one. */
static int
claim_snapshot_l2 (const struct building *b, uint64_t cluster)
{
  struct metadata_map *m = b->map;
  CLEANUP_FREE uint64_t *old = NULL;
  int r;

  if (fixed_overlaps (m, cluster, cluster)
      || cluster_set_contains (&m->single, cluster))
    return fail_overlap (b);
  if ((r = cluster_set_reserve (&m->snapshot_tables, &old)) < 0)
    return r;
  cluster_set_insert (&m->snapshot_tables, cluster);
  return 0;
}

/* Not even part of the last cluster may be missing (l2-cache.c). */
static bool
is_lost (const struct building *b, const struct metadata_range *range)
{
  const uint64_t size = b->source->file_size;

  return range->kind == METADATA_L2
    && (range->offset > size || range->length > size - range->offset);
}

/* The second walk goes over all others, cluster by cluster. */
static int
claim_single (void *opaque, const struct metadata_range *range)
{
  const struct building *b = opaque;
  struct metadata_map *m = b->map;
  const uint64_t first = range->offset >> m->cluster_bits;
  uint64_t last;
  int r;

  if (is_fixed (range->kind) || range->length == 0)
    return 0;
  /* One of which the file has the beginning is where something else may be. */
  if (is_lost (b, range)) {
    m->first_lost = min64 (m->first_lost, first);
    if (range->offset >= b->source->file_size)
      return 0;
  }
  if (range->snapshot)
    return claim_snapshot_l2 (b, first);
  last = (range->offset + range->length - 1) >> m->cluster_bits;
  if (fixed_overlaps (m, first, last))
    return fail_overlap (b);
  for (uint64_t c = first; c <= last; c++) {
    if (cluster_set_contains (&m->single, c)
        || (range->kind != METADATA_L2
            && cluster_set_contains (&m->snapshot_tables, c)))
      return fail_overlap (b);
    if ((r = metadata_map_add (m, c)) < 0)
      return r;
  }
  return 0;
}

int
metadata_map_build (struct metadata_map *m,
                    const struct metadata_source *source,
                    struct health *health)
{
  struct building b = { .map = m, .source = source, .health = health };
  const struct cluster_set *tables = &m->snapshot_tables;
  int r;

  if ((r = metadata_walk (source, claim_fixed, &b)) < 0
      || (r = sort_fixed (&b)) < 0)
    return r;
  r = metadata_walk (source, claim_single, &b);
  for (size_t i = 0; r == 0 && i < tables->room; i++)
    if (tables->slot[i])
      r = metadata_map_add (m, tables->slot[i] - 1);
  return r;
}
