/* qcow2ext: the only place that changes L2 and L1 tables.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "disk/l2-entry.h"
#include "map/l2-cache.h"
#include "map/mapping-update.h"
#include "space/allocator.h"

int
mapping_update_init (struct mapping_update *u, struct layer *layer,
                     struct health *health, struct refcounts *counts,
                     struct deferred_free *frees)
{
  *u = (struct mapping_update) {
    .layer = layer, .health = health, .counts = counts,
    .metadata = counts->metadata, .frees = frees,
  };
  pthread_mutex_init (&u->lock, NULL);
  batch_init (&u->l1_changes);
  return l1_table_init (&u->l1, layer);
}

void
mapping_update_destroy (struct mapping_update *u)
{
  batch_free (&u->l1_changes);
  l1_table_destroy (&u->l1);
  pthread_mutex_destroy (&u->lock);
}

static int
fail_on_metadata (struct mapping_update *u)
{
  return health_mark_corrupt (u->health,
                              "a guest cluster lies where metadata is");
}

int
mapping_check_target (struct mapping_update *u, uint64_t host,
                      uint64_t length)
{
  if (!metadata_map_overlaps (u->metadata, host, length))
    return 0;
  return fail_on_metadata (u);
}

int
mapping_check_used (struct mapping_update *u, uint64_t entry)
{
  uint64_t offset, length;

  if (!l2_entry_refers_to (&u->layer->geo, entry, &offset, &length))
    return 0;
  return refcounts_check_used (u->counts, offset, length);
}

/* Takes the change lock and the cache's lock for writing, with the table of
 * l1_index in memory and ready for changes.  On failure holds neither.
 */
static int
lock_table (struct mapping_update *u, uint32_t l1_index, struct l2_table **t)
{
  struct layer *layer = u->layer;
  const char *why;
  int r;

  for (;;) {
    r = l2_cache_load (layer, l1_index, &why);
    if (r < 0)
      return r;
    pthread_mutex_lock (&u->lock);
    brlock_write (&layer->tables->lock);
    *t = layer->l2[l1_index];
    if (*t)
      break;
    brlock_write_unlock (&layer->tables->lock);
    pthread_mutex_unlock (&u->lock);
  }
  r = health_ok (u->health) ? l2_table_prepare (*t) : -EIO;
  if (r < 0) {
    brlock_write_unlock (&layer->tables->lock);
    pthread_mutex_unlock (&u->lock);
  }
  return r;
}

static void
unlock_table (struct mapping_update *u)
{
  brlock_write_unlock (&u->layer->tables->lock);
  pthread_mutex_unlock (&u->lock);
}

/* --- a table that is ours alone --- */

/* Spec: an L1 entry without the copied flag refers to a table that a snapshot
 * shares.
 */
static bool
is_own (const struct layer *layer, uint32_t l1_index)
{
  return layer_l1_entry (layer, l1_index) & QCOW2_COPIED
    && layer_l2_offset (layer, l1_index);
}

/* Makes an empty table at host where there is none.  1: a request was faster.
 */
static int
make_table (struct mapping_update *u, uint32_t l1_index, uint64_t host)
{
  struct layer *layer = u->layer;

  LOCK_FOR_SCOPE (&u->lock);
  if (layer_l2_offset (layer, l1_index))
    return 1;
  if (l2_cache_create (layer, l1_index, host) == NULL)
    return -ENOMEM;
  l1_table_set (&u->l1, l1_index, host);
  return 0;
}

/* Moves a table that a snapshot shares to host.  1: a request was faster. */
static int
move_table (struct mapping_update *u, uint32_t l1_index, uint64_t host)
{
  struct layer *layer = u->layer;
  uint64_t old;
  struct l2_table *t;
  int r = lock_table (u, l1_index, &t);

  if (r < 0)
    return r;
  old = layer_l2_offset (layer, l1_index);
  if (layer_l1_entry (layer, l1_index) & QCOW2_COPIED)
    r = 1;
  else if ((r = deferred_free_reserve (u->frees, 1)) == 0) {
    t->host = host;
    t->is_new = true;
    l1_table_set (&u->l1, l1_index, host);
    l2_cache_mark_dirty (layer->tables, t);
    deferred_free_add (u->frees, old, layer_cluster_size (layer), true);
  }
  unlock_table (u);
  return r;
}

int
mapping_own_table (struct mapping_update *u, uint32_t l1_index)
{
  struct layer *layer = u->layer;
  uint64_t host;
  int r;

  if (is_own (layer, l1_index))
    return 0;
  r = allocator_alloc_table (u->counts, NULL, &host);
  if (r < 0)
    return r == -ENOSPC && is_own (layer, l1_index) ? 0 : r;
  if (layer_l2_offset (layer, l1_index) == 0)
    r = make_table (u, l1_index, host);
  else
    r = move_table (u, l1_index, host);
  if (r < 0 || r == 1)
    allocator_give_back_table (u->counts, host);
  return r < 0 ? r : 0;
}

/* --- entries --- */

/* An entry that refers to metadata must not lead to its being freed. */
static bool
refers_to_metadata (const struct mapping_update *u, uint64_t entry)
{
  uint64_t offset, length;

  return l2_entry_refers_to (&u->layer->geo, entry, &offset, &length)
    && metadata_map_overlaps (u->metadata, offset, length);
}

/* Can what the clusters refer to now be let go of? */
static int
prepare_frees (struct mapping_update *u, const struct l2_table *t,
               const struct publication *p)
{
  const uint32_t first = layer_l2_index (u->layer, p->cluster);

  for (uint64_t i = 0; i < p->clusters; i++) {
    uint64_t bitmap;

    if (refers_to_metadata (u, l2_table_get (t, first + i, &bitmap)))
      return -EUCLEAN;
  }
  return deferred_free_reserve (u->frees, p->clusters);
}

static void
publish_cluster (struct mapping_update *u, struct l2_table *t,
                 const struct publication *p, uint64_t number)
{
  const struct geometry *g = &u->layer->geo;
  const uint64_t skip = number << g->cluster_bits;
  const uint64_t cluster = p->cluster + skip;
  const uint32_t index = geometry_l2_index (g, cluster);
  const uint32_t mask =
    p->whole ? UINT32_MAX
             : geometry_subcluster_mask (g, cluster, p->start, p->end);
  uint64_t entry, bitmap, offset, length;

  entry = l2_table_get (t, index, &bitmap);
  if (p->is_new && l2_entry_refers_to (g, entry, &offset, &length))
    deferred_free_add (u->frees, offset, length, false);
  if (p->packed)
    l2_entry_make_compressed (g, p->packed[number].host,
                              p->packed[number].size, &entry, &bitmap);
  else
    l2_entry_make_data (g, p->host + skip, mask, &entry, &bitmap);
  l2_table_set (t, index, entry, bitmap);
}

int
mapping_publish (struct mapping_update *u, const struct publication *p)
{
  struct l2_table *t;
  int r = lock_table (u, layer_l1_index (u->layer, p->cluster), &t);

  if (r < 0)
    return r;
  if (p->is_new)
    r = prepare_frees (u, t, p);
  if (r == 0) {
    for (uint64_t i = 0; i < p->clusters; i++)
      publish_cluster (u, t, p, i);
    l2_cache_mark_dirty (u->layer->tables, t);
  }
  unlock_table (u);
  return r == -EUCLEAN ? fail_on_metadata (u) : r;
}

/* Zeroes the part of a cluster from pos to end.  Returns 1 if that was done, 0
 * if it needs zeros to be written, or -EUCLEAN.
 */
static int
zero_cluster (struct mapping_update *u, struct l2_table *t, uint64_t pos,
              uint64_t end, bool unmap, bool *changed)
{
  const struct layer *layer = u->layer;
  const struct geometry *g = &layer->geo;
  const uint64_t size = geometry_cluster_size (g);
  const uint64_t cluster = round_down (pos, size);
  const uint32_t index = geometry_l2_index (g, pos);
  const uint32_t mask =
    end >= layer->size && cluster + size > layer->size && pos == cluster
    ? UINT32_MAX : geometry_subcluster_mask (g, cluster, pos, end);
  uint64_t old, old_bitmap, entry, bitmap, old_host, length, host, n;
  bool keep;

  entry = old = l2_table_get (t, index, &old_bitmap);
  bitmap = old_bitmap;
  keep = l2_entry_writable_in_place (g, layer_file_size (layer), old)
    && !unmap;
  if (!l2_entry_make_zero (g, mask, keep, layer_nothing_below (layer, cluster),
                           &entry, &bitmap))
    return 0;
  if (entry == old && bitmap == old_bitmap)
    return 1;
  if (l2_entry_refers_to (g, old, &old_host, &length)
      && !(l2_entry_refers_to (g, entry, &host, &n) && host == old_host)) {
    if (refers_to_metadata (u, old))
      return -EUCLEAN;
    deferred_free_add (u->frees, old_host, length, false);
  }
  l2_table_set (t, index, entry, bitmap);
  *changed = true;
  return 1;
}

int
mapping_zero (struct mapping_update *u, uint64_t count, uint64_t offset,
              bool unmap, uint64_t *done, bool *changed)
{
  struct layer *layer = u->layer;
  const uint64_t size = layer_cluster_size (layer);
  const uint64_t end = offset + count;
  const uint32_t l1_index = layer_l1_index (layer, offset);
  struct l2_table *t;
  int r;

  *done = 0;
  *changed = false;
  if ((r = lock_table (u, l1_index, &t)) < 0)
    return r;
  r = deferred_free_reserve (u->frees, (round_up (end, size)
                                        - round_down (offset, size)) / size);
  for (uint64_t pos = offset, next; r == 0 && pos < end; pos = next) {
    next = min64 (round_down (pos, size) + size, end);
    r = zero_cluster (u, t, pos, end, unmap, changed);
    if (r <= 0)
      break;
    r = 0;
    *done = next - offset;
  }
  if (*changed)
    l2_cache_mark_dirty (layer->tables, t);
  unlock_table (u);
  return r == -EUCLEAN ? fail_on_metadata (u) : r;
}

/* --- for commit --- */

/* All in one hold of the lock.  With the L2 tables in an earlier one, a table
 * that is made in between would have its L1 entry in this commit, and itself in
 * none.
 */
static int
begin (struct mapping_update *u)
{
  const int r = l1_table_collect (&u->l1, &u->l1_changes);

  if (r < 0) {
    batch_free (&u->l1_changes);
    return r;
  }
  l1_table_clean (&u->l1);
  l2_cache_begin (u->layer->tables);
  deferred_free_take (u->frees);
  u->in_rounds = true;
  return 0;
}

/* The commit is over, or is given up. */
static void
end (struct mapping_update *u, enum commit_progress progress)
{
  u->in_rounds = false;
  batch_free (&u->l1_changes);
  l1_table_done (&u->l1, progress);
  deferred_free_done (u->frees, progress == COMMIT_ALL);
}

static int
collect (void *self, struct batch *batch)
{
  struct mapping_update *u = self;
  int r;

  LOCK_FOR_SCOPE (&u->lock);
  if (!u->in_rounds && (r = begin (u)) < 0)
    return r;
  r = l2_cache_collect (u->layer->tables, batch);
  if (r < 0) {
    l2_cache_done (u->layer->tables, COMMIT_NOTHING);
    end (u, COMMIT_NOTHING);
    return r;
  }
  u->in_rounds = r == COMMIT_MORE;
  if (!u->in_rounds)
    batch_move (batch, &u->l1_changes);
  return r;
}

static void
done (void *self, enum commit_progress progress)
{
  struct mapping_update *u = self;
  bool is_end;

  pthread_mutex_lock (&u->lock);
  is_end = !u->in_rounds || progress != COMMIT_ALL;
  l2_cache_done (u->layer->tables, progress);
  if (is_end)
    end (u, progress);
  pthread_mutex_unlock (&u->lock);
  if (is_end && progress == COMMIT_ALL)
    deferred_free_reap (u->frees);
}

static bool
is_dirty (void *self)
{
  struct mapping_update *u = self;

  LOCK_FOR_SCOPE (&u->lock);
  return u->layer->tables->dirty || u->l1.is_dirty;
}

struct commit_source
mapping_update_source (struct mapping_update *u)
{
  return (struct commit_source) {
    .collect = collect, .done = done, .is_dirty = is_dirty, .self = u,
  };
}
