/* qcow2ext: L2 tables in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * One cache serves all layers of a chain, bounded in bytes; the slots that
 * point at the tables belong to the images.
 *
 *   slot NULL --load--> table in the slot and in the ring --evict--> NULL
 *
 * Invariants: a table is in exactly one slot and in the ring; what a slot
 * shows changes only under the write side of the lock; a table that a reader
 * found under the read side is complete.
 *
 * Lock order: load_lock[i] (held while a table is read, so that two threads
 * do not read the same one), then lock.  Eviction is a clock: a look-up marks
 * the table, the hand takes away marks and then tables.
 */

#include "build-config.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mutant.h"
#include "map/table-cache.h"

#define LOAD_LOCKS 16

struct table_cache {
  struct brlock lock;
  size_t limit;                 /* bytes */
  size_t bytes;                 /* in the ring; under lock */
  size_t count;                 /* of tables in the ring; under lock */
  struct l2_table *hand;        /* NULL: the ring is empty; under lock */
  pthread_mutex_t load_lock[LOAD_LOCKS];
};

struct table_cache *
table_cache_new (size_t limit)
{
  struct table_cache *cache = aligned_alloc (64, sizeof *cache);

  if (cache == NULL)
    return NULL;
  memset (cache, 0, sizeof *cache);
  cache->limit = limit;
  brlock_init (&cache->lock);
  for (unsigned i = 0; i < LOAD_LOCKS; i++)
    pthread_mutex_init (&cache->load_lock[i], NULL);
  return cache;
}

struct brlock *
table_cache_lock (struct table_cache *cache)
{
  return &cache->lock;
}

/* Takes a table out of its slot and the ring, under the write lock. */
static void
remove_table (struct table_cache *cache, struct l2_table *t)
{
  t->layer->l2[t->l1_index] = NULL;
  cache->bytes -= sizeof *t + t->bytes;
  cache->count--;
  t->prev->next = t->next;
  t->next->prev = t->prev;
  if (cache->hand == t)
    cache->hand = t->next == t ? NULL : t->next;
}

/* Puts a table into its slot and the ring, where the hand comes by last. */
static void
insert_table (struct table_cache *cache, struct l2_table *t)
{
  t->layer->l2[t->l1_index] = t;
  cache->bytes += sizeof *t + t->bytes;
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

/* What eviction must not do: to write a table, in no order. */
static void __attribute__ ((unused))
write_out (const struct l2_table *t)
{
  const size_t size = layer_cluster_size (t->layer);
  CLEANUP_FREE void *buf = malloc (size);

  if (buf) {
    l2_table_encode (t, 0, size / QCOW2_SECTOR_SIZE, buf);
    store_pwrite (t->layer->file, buf, size, t->host);
  }
}

/* Takes tables out until the limit is met, all but "keep" and those that hold
 * what is not on disk yet (the writer commits before these are too many).
 * Returns them as a list (by ->next) for the caller to free when it has let
 * go of the lock.
 */
static struct l2_table *
evict (struct table_cache *cache, const struct l2_table *keep)
{
  struct l2_table *evicted = NULL;
  size_t looks = 2 * cache->count; /* everything once marked, once not */

  while (cache->bytes > cache->limit && looks-- > 0) {
    struct l2_table *t = cache->hand;

    if (MUTANT (evict_dirty) && t != keep && t->is_dirty)
      write_out (t);
    if (MUTANT (evict_busy) && t != keep && t->busy && !t->is_dirty) {
      static struct l2_table *gone; /* never freed: the commit has it */

      remove_table (cache, t);
      t->next = gone;
      gone = t;
      continue;
    }
    if (t == keep || t->is_dirty || t->fresh || t->busy
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

    free (t->dirty);
    free (t);
    t = next;
  }
}

void
table_cache_drop (struct layer *layer)
{
  struct table_cache *cache = layer->tables;
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
table_cache_free (struct table_cache *cache)
{
  if (cache == NULL)
    return;
  brlock_destroy (&cache->lock);
  for (unsigned i = 0; i < LOAD_LOCKS; i++)
    pthread_mutex_destroy (&cache->load_lock[i]);
  free (cache);
}

/* The state that a cluster's entry stands for; -1: none of the sound ones. */
static int
compact_entry (uint64_t entry, uint64_t offset)
{
  if (entry == (offset | QCOW2_COPIED))
    return L2_DATA;
  if (entry == 0)
    return L2_UNALLOCATED;
  if (entry == QCOW2_L2_ZERO)
    return L2_ZERO;
  if (entry == (offset | QCOW2_COPIED | QCOW2_L2_ZERO))
    return L2_ZERO_ALLOCATED;
  return -1;
}

/* Are the four entries, of clusters from offset on, all data?  So are most in
 * a full or preallocated image, of which there can be millions to read.
 */
static bool
four_data (const struct layer *layer, const be64 *entries, uint64_t offset)
{
  const uint64_t first = offset | QCOW2_COPIED;
  const uint64_t size = layer_cluster_size (layer);

  return ((be64_get (entries[0]) ^ first)
          | (be64_get (entries[1]) ^ (first + size))
          | (be64_get (entries[2]) ^ (first + 2 * size))
          | (be64_get (entries[3]) ^ (first + 3 * size))) == 0;
}

/* Turns a standard table of an image with an external data file into two
 * bits an entry.  Returns false if an entry is not one of the four sound
 * ones.
 */
static bool
compact_table (const struct layer *layer, uint32_t l1_index,
               const be64 *entries, uint8_t *states)
{
  const uint32_t n = UINT32_C (1) << layer->geo.l2_bits;
  uint64_t offset =
    (uint64_t) l1_index << (layer->geo.l2_bits + layer->geo.cluster_bits);

  for (uint32_t i = 0; i < n; i += 4) {
    if (four_data (layer, entries + i, offset)) {
      states[i / 4] = L2_DATA * 0x55;
      offset += 4 * layer_cluster_size (layer);
      continue;
    }
    for (unsigned j = 0; j < 4; j++, offset += layer_cluster_size (layer)) {
      const int state = compact_entry (be64_get (entries[i + j]), offset);

      if (state < 0)
        return false;
      states[i / 4] |= state << (j * 2);
    }
  }
  return true;
}

/* Reads a table that has been found to lie within the file. */
static int
read_table (struct layer *layer, uint32_t l1_index, uint64_t offset,
            struct l2_table **result)
{
  const size_t size = layer_cluster_size (layer);
  const size_t compact_size = ((size_t) 1 << layer->geo.l2_bits) / 4;
  struct l2_table *t = NULL;
  int r;

  if (layer->geo.has_data_file && !layer->geo.extended_l2) {
    CLEANUP_FREE be64 *entries = malloc (size);

    t = calloc (1, sizeof *t + compact_size);
    r = entries && t ? store_pread (layer->file, entries, size, offset)
                     : -ENOMEM;
    if (r == 0
        && compact_table (layer, l1_index, entries, (uint8_t *) t->payload)) {
      t->compact = true;
      t->bytes = compact_size;
      goto out;
    }
    free (t);
    if (r < 0)
      return r;
  }

  t = malloc (sizeof *t + size);
  if (t == NULL)
    return -ENOMEM;
  memset (t, 0, sizeof *t);
  t->bytes = size;
  r = store_pread (layer->file, t->payload, size, offset);
  if (r < 0) {
    free (t);
    return r;
  }

 out:
  t->layer = layer;
  t->l1_index = l1_index;
  t->host = offset;
  atomic_init (&t->used, true);
  *result = t;
  return 0;
}

struct l2_table *
table_cache_create (struct layer *layer, uint32_t l1_index, uint64_t host)
{
  struct table_cache *cache = layer->tables;
  const bool compact = layer->geo.has_data_file && !layer->geo.extended_l2;
  const size_t bytes = compact ? ((size_t) 1 << layer->geo.l2_bits) / 4
                               : layer_cluster_size (layer);
  struct l2_table *t = calloc (1, sizeof *t + bytes);
  struct l2_table *evicted;

  if (t == NULL)
    return NULL;
  t->layer = layer;
  t->l1_index = l1_index;
  t->host = host;
  t->compact = compact;
  t->bytes = bytes;
  t->fresh = true;
  atomic_init (&t->used, true);
  if (l2_table_prepare (t) < 0) {
    free (t);
    return NULL;
  }

  brlock_write (&cache->lock);
  __atomic_store_n (&layer->l1[l1_index].raw,
                    be64_make (host | QCOW2_COPIED).raw, __ATOMIC_RELAXED);
  insert_table (cache, t);
  evicted = evict (cache, t);
  brlock_write_unlock (&cache->lock);
  free_list (evicted);
  return t;
}

int
l2_table_prepare (struct l2_table *t)
{
  const size_t sectors = layer_cluster_size (t->layer) / QCOW2_SECTOR_SIZE;

  if (t->dirty == NULL)
    t->dirty = calloc ((sectors + 63) / 64, sizeof *t->dirty);
  return t->dirty ? 0 : -ENOMEM;
}

void
l2_table_set (struct l2_table *t, uint32_t index, uint64_t entry,
              uint64_t bitmap)
{
  const size_t entry_size = t->layer->geo.extended_l2 ? 16 : 8;
  const size_t sector = index * entry_size / QCOW2_SECTOR_SIZE;

  t->dirty[sector / 64] |= UINT64_C (1) << (sector % 64);
  if (t->compact) {
    uint8_t *states = (uint8_t *) t->payload;
    const unsigned shift = index % 4 * 2;
    unsigned state = L2_UNALLOCATED;

    if (entry & QCOW2_COPIED)
      state = entry & QCOW2_L2_ZERO ? L2_ZERO_ALLOCATED : L2_DATA;
    else if (entry & QCOW2_L2_ZERO)
      state = L2_ZERO;
    states[index / 4] = (states[index / 4] & ~(3 << shift)) | state << shift;
  }
  else if (t->layer->geo.extended_l2) {
    struct qcow2_extended_entry *e = (void *) t->payload;

    e[index].entry = be64_make (entry);
    e[index].bitmap = be64_make (bitmap);
  }
  else
    ((be64 *) t->payload)[index] = be64_make (entry);
}

uint32_t
l2_table_same (const struct l2_table *t, uint32_t index, uint32_t max)
{
  const uint32_t end = index + max;
  const uint64_t low = UINT64_C (0x5555555555555555);
  const unsigned per_word = 32;
  const unsigned state =
    le64toh (t->payload[index / per_word]) >> (index % per_word * 2) & 3;
  const uint64_t all = state * low;
  uint32_t i = index;

  while (i < end) {
    const uint64_t other = le64toh (t->payload[i / per_word]) ^ all;
    /* The low bit of each entry that differs; of zeros, only in that bit. */
    const uint64_t differs =
      ((state & L2_ZERO ? other : other | other >> 1) & low)
      >> (i % per_word * 2);

    if (differs)
      return i + __builtin_ctzll (differs) / 2 - index;
    i = (i / per_word + 1) * per_word;
  }
  return max;
}

void
l2_table_encode (const struct l2_table *t, size_t sector, size_t count,
                 void *buf)
{
  if (!t->compact)
    memcpy (buf, (const uint8_t *) t->payload + sector * QCOW2_SECTOR_SIZE,
            count * QCOW2_SECTOR_SIZE);
  else {
    const uint32_t per_sector = QCOW2_SECTOR_SIZE / sizeof (be64);
    be64 *out = buf;

    for (uint32_t i = 0; i < count * per_sector; i++) {
      uint64_t bitmap;

      out[i] = be64_make (l2_table_get (t, sector * per_sector + i,
                                        &bitmap));
    }
  }
}

void
table_cache_usage (struct table_cache *cache, size_t *bytes, size_t *limit)
{
  pthread_mutex_t *reader = brlock_read (&cache->lock);

  *bytes = cache->bytes;
  *limit = cache->limit;
  pthread_mutex_unlock (reader);
}

int
table_cache_load (struct layer *layer, uint32_t l1_index, const char **why)
{
  struct table_cache *cache = layer->tables;
  const uint64_t size = layer_cluster_size (layer);
  struct l2_table *t, *evicted;
  pthread_mutex_t *reader;
  uint64_t offset;
  bool cached;
  int r;

  *why = NULL;
  LOCK_FOR_SCOPE (&cache->load_lock[l1_index % LOAD_LOCKS]);

  reader = brlock_read (&cache->lock);
  cached = layer->l2[l1_index] != NULL;
  pthread_mutex_unlock (reader);
  if (cached && !MUTANT (load_twice))
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

  r = read_table (layer, l1_index, offset, &t);
  if (r < 0)
    return r;

  brlock_write (&cache->lock);
  insert_table (cache, t);
  evicted = evict (cache, t);
  brlock_write_unlock (&cache->lock);
  free_list (evicted);
  return 0;
}
