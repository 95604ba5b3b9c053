/* qcow2ext: L2 tables in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "map/l2-cache.h"

struct l2_cache *
l2_cache_new (size_t limit)
{
  struct l2_cache *cache = aligned_alloc (64, sizeof *cache);

  if (cache == NULL)
    return NULL;
  memset (cache, 0, sizeof *cache);
  cache->limit = limit;
  brlock_init (&cache->lock);
  for (unsigned i = 0; i < L2_CACHE_LOAD_LOCKS; i++)
    pthread_mutex_init (&cache->load_lock[i], NULL);
  return cache;
}

/* Takes a table out of its slot and the ring, under the write lock. */
static void
remove_table (struct l2_cache *cache, struct l2_table *t)
{
  t->layer->l2[t->l1_index] = NULL;
  cache->bytes -= l2_table_memory (t);
  cache->count--;
  t->prev->next = t->next;
  t->next->prev = t->prev;
  if (cache->hand == t)
    cache->hand = t->next == t ? NULL : t->next;
}

/* Puts a table into its slot and the ring, where the hand comes by last. */
static void
insert_table (struct l2_cache *cache, struct l2_table *t)
{
  t->layer->l2[t->l1_index] = t;
  cache->bytes += l2_table_memory (t);
  cache->count++;
  if (cache->hand == NULL) {
    t->next = t->prev = t;
    cache->hand = t;
    return;
  }
  t->next = cache->hand;
  t->prev = cache->hand->prev;
  t->prev->next = t;
  t->next->prev = t;
}

/* How many tables the hand passes for one that comes in: with all of them dirty
 * or in a commit it finds nothing, and must not look at all of them each time.
 */
#define EVICT_LOOKS 64

/* Takes tables out until the limit is met, all but "keep" and those that hold
 * what is not on disk yet (the writer commits before these are too many).
 * Returns them as a list (by ->next) for the caller to free when it has let
 * go of the lock.
 */
static struct l2_table *
evict (struct l2_cache *cache, const struct l2_table *keep)
{
  struct l2_table *evicted = NULL;
  /* At most everything, once marked and once not. */
  size_t looks = min64 (2 * cache->count, EVICT_LOOKS);

  while (cache->bytes > cache->limit && looks-- > 0) {
    struct l2_table *t = cache->hand;

    if (t == keep || t->is_dirty || t->is_new || t->in_commit
        || atomic_load_explicit (&t->used, memory_order_relaxed)) {
      atomic_store_explicit (&t->used, false, memory_order_relaxed);
      cache->hand = t->next;
      continue;
    }
    remove_table (cache, t);
    t->next = evicted;
    evicted = t;
  }
  return evicted;
}

static void
free_list (struct l2_table *t)
{
  while (t) {
    struct l2_table *next = t->next;

    l2_table_free (t);
    t = next;
  }
}

void
l2_cache_drop (struct layer *layer)
{
  struct l2_cache *cache = layer->tables;
  struct l2_table *dropped = NULL, *t, *next;

  brlock_write (&cache->lock);
  t = cache->hand;
  if (t) {
    t->prev->next = NULL;       /* cut the ring open for the walk */
    cache->hand = NULL;
    cache->bytes = 0;
    cache->count = 0;
    for (; t; t = next) {
      next = t->next;
      if (t->layer == layer) {
        layer->l2[t->l1_index] = NULL;
        t->next = dropped;
        dropped = t;
      }
      else
        insert_table (cache, t);
    }
  }
  brlock_write_unlock (&cache->lock);
  free_list (dropped);
}

void
l2_cache_free (struct l2_cache *cache)
{
  if (cache == NULL)
    return;
  brlock_destroy (&cache->lock);
  for (unsigned i = 0; i < L2_CACHE_LOAD_LOCKS; i++)
    pthread_mutex_destroy (&cache->load_lock[i]);
  free (cache);
}

struct l2_table *
l2_cache_create (struct layer *layer, uint32_t l1_index, uint64_t host)
{
  struct l2_cache *cache = layer->tables;
  struct l2_table *t = l2_table_new (layer, l1_index, host), *evicted;

  if (t == NULL)
    return NULL;
  brlock_write (&cache->lock);
  l2_cache_mark_dirty (cache, t);
  insert_table (cache, t);
  evicted = evict (cache, t);
  brlock_write_unlock (&cache->lock);
  free_list (evicted);
  return t;
}

void
l2_cache_usage (struct l2_cache *cache, size_t *bytes, size_t *limit)
{
  pthread_mutex_t *reader = brlock_read (&cache->lock);

  *bytes = cache->bytes;
  *limit = cache->limit;
  pthread_mutex_unlock (reader);
}

int
l2_cache_load (struct layer *layer, uint32_t l1_index, const char **why)
{
  struct l2_cache *cache = layer->tables;
  const uint64_t size = layer_cluster_size (layer);
  struct l2_table *t, *evicted;
  pthread_mutex_t *reader;
  uint64_t offset;
  bool cached;
  int r;

  *why = NULL;
  LOCK_FOR_SCOPE (&cache->load_lock[l1_index % L2_CACHE_LOAD_LOCKS]);

  reader = brlock_read (&cache->lock);
  cached = layer->l2[l1_index] != NULL;
  pthread_mutex_unlock (reader);
  if (cached)
    return 0;

  /* A table moves only while it is in memory, so it stays here for as long
   * as the load lock keeps others from bringing it there.
   */
  offset = layer_l2_offset (layer, l1_index);
  if (offset & (size - 1)) {
    *why = "the L2 table is not aligned to a cluster";
    return -EIO;
  }
  if (offset > layer_file_size (layer)
      || size > layer_file_size (layer) - offset) {
    *why = "the L2 table lies past the end of the file";
    return -EIO;
  }

  r = l2_table_read (layer, l1_index, offset, &t);
  if (r < 0)
    return r;

  brlock_write (&cache->lock);
  insert_table (cache, t);
  evicted = evict (cache, t);
  brlock_write_unlock (&cache->lock);
  free_list (evicted);
  return 0;
}

/* --- what is to be written; under the change lock --- */

void
l2_cache_mark_dirty (struct l2_cache *cache, struct l2_table *t)
{
  if (t->is_dirty)
    return;
  t->is_dirty = true;
  t->next_dirty = cache->dirty;
  cache->dirty = t;
  cache->dirty_bytes += l2_table_memory (t);
}

void
l2_cache_begin (struct l2_cache *cache)
{
  cache->waiting = cache->dirty;
  cache->dirty = NULL;
  cache->dirty_bytes = 0;
}

/* The first tables that wait, up to "end", are in the commit.  Eviction must
 * find each table either dirty or in the commit.
 */
static void
clean (struct l2_cache *cache, const struct l2_table *end)
{
  struct l2_table *t;

  brlock_write (&cache->lock);
  while ((t = cache->waiting) != end) {
    const size_t sectors = layer_cluster_size (t->layer) / QCOW2_SECTOR_SIZE;

    cache->waiting = t->next_dirty;
    memset (t->dirty, 0, bit_words (sectors) * sizeof *t->dirty);
    t->was_new = t->is_new;
    t->is_dirty = t->is_new = false;
    t->in_commit = true;
    t->next_in_commit = cache->in_commit;
    cache->in_commit = t;
  }
  brlock_write_unlock (&cache->lock);
}

int
l2_cache_collect (struct l2_cache *cache, struct batch *batch)
{
  const struct l2_table *t = cache->waiting;

  while (t) {
    const int r = l2_table_collect (t, batch);

    if (r < 0)
      return r;
    t = t->next_dirty;
    if (batch->bytes >= cache->limit)
      break;
  }
  clean (cache, t);
  return t ? COMMIT_MORE : 0;
}

/* Under the cache's lock for writing. */
static void
end_waiting (struct l2_cache *cache)
{
  struct l2_table *t;

  while ((t = cache->waiting) != NULL) {
    cache->waiting = t->next_dirty;
    t->is_dirty = false;
    l2_cache_mark_dirty (cache, t);
  }
}

/* What did not reach the disk is marked as a whole: more than was changed, but
 * the next commit then writes the truth.  A table that was new is so no more
 * after the first stage: an L1 entry may refer to it already.
 */
void
l2_cache_done (struct l2_cache *cache, enum commit_progress progress)
{
  struct l2_table *t;

  brlock_write (&cache->lock);
  while ((t = cache->in_commit) != NULL) {
    const size_t sectors = layer_cluster_size (t->layer) / QCOW2_SECTOR_SIZE;

    cache->in_commit = t->next_in_commit;
    t->in_commit = false;
    if (progress == COMMIT_ALL)
      continue;
    for (size_t s = 0; s < sectors; s++)
      set_bit (t->dirty, s);
    t->is_new |= t->was_new && progress == COMMIT_NOTHING;
    l2_cache_mark_dirty (cache, t);
  }
  if (progress != COMMIT_ALL)
    end_waiting (cache);
  brlock_write_unlock (&cache->lock);
}
