/* qcow2ext: the set of host clusters that hold metadata.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "space/metadata-map.h"

/* --- a set --- */

static size_t
set_slot (const struct cluster_set *s, uint64_t cluster)
{
  return (cluster * UINT64_C (0x9e3779b97f4a7c15)) >> 20 & (s->room - 1);
}

static bool
set_contains (const struct cluster_set *s, uint64_t cluster)
{
  if (s->room == 0)
    return false;
  for (size_t i = set_slot (s, cluster); s->slot[i];
       i = (i + 1) & (s->room - 1))
    if (s->slot[i] == cluster + 1)
      return true;
  return false;
}

static void
set_insert (struct cluster_set *s, uint64_t cluster)
{
  size_t i = set_slot (s, cluster);

  while (s->slot[i] && s->slot[i] != cluster + 1)
    i = (i + 1) & (s->room - 1);
  if (s->slot[i] == 0)
    s->count++;
  s->slot[i] = cluster + 1;
}

static void
set_remove (struct cluster_set *s, uint64_t cluster)
{
  size_t i = set_slot (s, cluster);

  while (s->slot[i] != cluster + 1)
    i = (i + 1) & (s->room - 1);
  s->slot[i] = 0;
  s->count--;
  /* The elements behind it, up to an empty slot, must find their place again.
   */
  for (i = (i + 1) & (s->room - 1); s->slot[i]; i = (i + 1) & (s->room - 1)) {
    const uint64_t moved = s->slot[i] - 1;

    s->slot[i] = 0;
    s->count--;
    set_insert (s, moved);
  }
}

/* Doubles the set when it is half full.  Returns the old slots to free. */
static int
set_reserve (struct cluster_set *s, uint64_t **old)
{
  struct cluster_set bigger = { .room = s->room ? 2 * s->room : 64 };

  *old = NULL;
  if (s->count * 2 < s->room)
    return 0;
  bigger.slot = calloc (bigger.room, sizeof *bigger.slot);
  if (bigger.slot == NULL)
    return -ENOMEM;
  for (size_t i = 0; i < s->room; i++)
    if (s->slot[i])
      set_insert (&bigger, s->slot[i] - 1);
  *old = s->slot;
  *s = bigger;
  return 0;
}

static void
set_free (struct cluster_set *s)
{
  free (s->slot);
  memset (s, 0, sizeof *s);
}

/* --- the map --- */

void
metadata_map_init (struct metadata_map *m, unsigned cluster_bits)
{
  memset (m, 0, sizeof *m);
  m->cluster_bits = cluster_bits;
  brlock_init (&m->lock);
}

void
metadata_map_clear (struct metadata_map *m)
{
  set_free (&m->all);
  set_free (&m->snapshot_tables);
}

void
metadata_map_destroy (struct metadata_map *m)
{
  metadata_map_clear (m);
  brlock_destroy (&m->lock);
}

bool
metadata_map_overlaps (struct metadata_map *m, uint64_t offset,
                       uint64_t length)
{
  const uint64_t last = (offset + length - 1) >> m->cluster_bits;
  pthread_mutex_t *reader = brlock_read (&m->lock);
  bool found = false;

  for (uint64_t c = offset >> m->cluster_bits; c <= last && !found; c++)
    found = set_contains (&m->all, c);
  pthread_mutex_unlock (reader);
  return found;
}

int
metadata_map_add (struct metadata_map *m, uint64_t cluster)
{
  CLEANUP_FREE uint64_t *old = NULL;
  int r;

  brlock_write (&m->lock);
  r = set_reserve (&m->all, &old);
  if (r == 0)
    set_insert (&m->all, cluster);
  brlock_write_unlock (&m->lock);
  return r;
}

void
metadata_map_remove (struct metadata_map *m, uint64_t cluster)
{
  brlock_write (&m->lock);
  if (set_contains (&m->all, cluster))
    set_remove (&m->all, cluster);
  brlock_write_unlock (&m->lock);
}

bool
metadata_map_is_snapshot_table (const struct metadata_map *m,
                                uint64_t cluster)
{
  return set_contains (&m->snapshot_tables, cluster);
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

/* Adds the clusters of a structure; they must not be in the map.  Only an
 * active L2 table may be a snapshot's, too.
 */
static int
claim (const struct building *b, const struct metadata_range *range)
{
  struct metadata_map *m = b->map;
  uint64_t last;
  int r;

  if (range->length == 0)
    return 0;
  last = (range->offset + range->length - 1) >> m->cluster_bits;
  for (uint64_t c = range->offset >> m->cluster_bits; c <= last; c++) {
    if (set_contains (&m->all, c)
        || (range->kind != METADATA_L2
            && set_contains (&m->snapshot_tables, c)))
      return fail_overlap (b);
    if ((r = metadata_map_add (m, c)) < 0)
      return r;
  }
  return 0;
}

/* Snapshots share L2 tables. */
static int
claim_snapshot_l2 (const struct building *b,
                   const struct metadata_range *range)
{
  struct metadata_map *m = b->map;
  const uint64_t cluster = range->offset >> m->cluster_bits;
  CLEANUP_FREE uint64_t *old = NULL;
  int r;

  if (range->length == 0)
    return 0;
  if (set_contains (&m->all, cluster))
    return fail_overlap (b);
  if ((r = set_reserve (&m->snapshot_tables, &old)) < 0)
    return r;
  set_insert (&m->snapshot_tables, cluster);
  return 0;
}

static int
claim_range (void *opaque, const struct metadata_range *range)
{
  const struct building *b = opaque;
  const uint64_t size = b->source->file_size;

  if (range->snapshot && range->kind == METADATA_L2)
    return claim_snapshot_l2 (b, range);
  if (range->snapshot
      && (range->length > QCOW2_MAX_L1_BYTES || range->offset > size
          || range->length > size - range->offset
          || range->offset & ((UINT64_C (1) << b->map->cluster_bits) - 1)))
    return health_mark_corrupt (b->health,
                                "the L1 table of a snapshot is misplaced");
  return claim (b, range);
}

int
metadata_map_build (struct metadata_map *m,
                    const struct metadata_source *source,
                    struct health *health)
{
  struct building b = { .map = m, .source = source, .health = health };
  const struct cluster_set *tables = &m->snapshot_tables;
  int r = metadata_walk (source, claim_range, &b);

  for (size_t i = 0; r == 0 && i < tables->room; i++)
    if (tables->slot[i])
      r = metadata_map_add (m, tables->slot[i] - 1);
  return r;
}
