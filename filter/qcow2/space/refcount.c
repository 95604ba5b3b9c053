/* qcow2ext: refcounts and the allocator.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * In memory, a count is raised when its cluster is allocated and lowered when
 * nothing on disk and nobody under way refers to it any more; so what is free
 * in memory may be allocated at once, and a block may be written at any time:
 * at worst it leaks clusters.
 *
 * New blocks and a larger table are rare.  They are linked on the spot, each
 * level made durable before what refers to it, so that the commit never sees
 * a cluster whose count could not be stored:
 *
 *   block written, flush, table entry written, flush
 *   blocks and table written, flush, header patched, flush, old table freed
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"
#include "base/cleanup.h"
#include "base/mutant.h"
#include "disk/snapshot.h"
#include "image/writer.h"

/* Bytes of clean refcount blocks that stay in memory. */
#define REFBLOCK_CACHE (UINT64_C (8) << 20)

static unsigned
block_bits (const struct writer *w)
{
  /* log2 of the counts in a block. */
  return w->layer->geo.cluster_bits + 3 - w->layer->header.refcount_order;
}

static uint64_t
cluster_size (const struct writer *w)
{
  return layer_cluster_size (w->layer);
}

/* --- the set of clusters that hold metadata --- */

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

int
metadata_add (struct writer *w, uint64_t cluster)
{
  struct brlock *lock = table_cache_lock (w->layer->tables);
  CLEANUP_FREE uint64_t *old = NULL;
  int r;

  brlock_write (lock);
  r = set_reserve (&w->metadata, &old);
  if (r == 0)
    set_insert (&w->metadata, cluster);
  brlock_write_unlock (lock);
  return r;
}

void
metadata_remove (struct writer *w, uint64_t cluster)
{
  struct brlock *lock = table_cache_lock (w->layer->tables);
  struct cluster_set *s = &w->metadata;

  brlock_write (lock);
  if (set_contains (s, cluster)) {
    size_t i = set_slot (s, cluster);

    while (s->slot[i] != cluster + 1)
      i = (i + 1) & (s->room - 1);
    s->slot[i] = 0;
    s->count--;
    /* Those behind it in the same cluster of slots must find their place
     * again.
     */
    for (i = (i + 1) & (s->room - 1); s->slot[i];
         i = (i + 1) & (s->room - 1)) {
      const uint64_t moved = s->slot[i] - 1;

      s->slot[i] = 0;
      s->count--;
      set_insert (s, moved);
    }
  }
  brlock_write_unlock (lock);
}

bool
metadata_contains (const struct writer *w, uint64_t offset, uint64_t length)
{
  const uint64_t first = offset >> w->layer->geo.cluster_bits;
  const uint64_t last = (offset + length - 1) >> w->layer->geo.cluster_bits;

  for (uint64_t c = first; c <= last; c++)
    if (set_contains (&w->metadata, c))
      return true;
  return false;
}

bool
metadata_overlaps (struct writer *w, uint64_t offset, uint64_t length)
{
  pthread_mutex_t *reader =
    brlock_read (table_cache_lock (w->layer->tables));
  const bool found = metadata_contains (w, offset, length);

  pthread_mutex_unlock (reader);
  return found;
}

/* --- counts within a block --- */

uint64_t
refcount_decode (const void *block, unsigned order, uint64_t index)
{
  switch (order) {
  case 6: return be64_get (((const be64 *) block)[index]);
  case 5: return be32_get (((const be32 *) block)[index]);
  case 4: return be16_get (((const be16 *) block)[index]);
  case 3: return ((const uint8_t *) block)[index];
  default: {
    const unsigned per_byte = 8 >> order;
    const unsigned shift = (index % per_byte) << order;

    return ((const uint8_t *) block)[index / per_byte] >> shift
      & ((1U << (1 << order)) - 1);
  }
  }
}

static uint64_t
block_get (const struct writer *w, const struct refblock *b, uint64_t index)
{
  return refcount_decode (b->data, w->layer->header.refcount_order, index);
}

static void
block_set (struct writer *w, struct refblock *b, uint64_t index,
           uint64_t count)
{
  const unsigned order = w->layer->header.refcount_order;
  const uint64_t sector = (index << order) / 8 / QCOW2_SECTOR_SIZE;
  void *data = b->data;

  switch (order) {
  case 6: ((be64 *) data)[index] = be64_make (count); break;
  case 5: ((be32 *) data)[index] = be32_make (count); break;
  case 4: ((be16 *) data)[index] = be16_make (count); break;
  case 3: b->data[index] = count; break;
  default: {
    const unsigned per_byte = 8 >> order;
    const unsigned shift = (index % per_byte) << order;
    const unsigned mask = ((1U << (1 << order)) - 1) << shift;
    uint8_t *p = &b->data[index / per_byte];

    *p = (*p & ~mask) | count << shift;
  }
  }
  b->dirty[sector / 64] |= UINT64_C (1) << (sector % 64);
  commit_mark_refblock (w, b);
}

/* --- blocks --- */

static struct refblock *
new_block (const struct writer *w, uint64_t host)
{
  struct refblock *b = calloc (1, sizeof *b + cluster_size (w));

  if (b)
    b->host = host;
  return b;
}

void
refcount_trim_cache (struct writer *w)
{
  const size_t max = REFBLOCK_CACHE >> w->layer->geo.cluster_bits;

  while (w->refblocks_cached > (max > 4 ? max : 4)) {
    uint64_t oldest = UINT64_MAX, victim = 0;

    for (uint64_t i = 0; i < w->reftable_entries; i++) {
      const struct refblock *b = w->refblock[i];

      if (b && !b->is_dirty && !b->busy && b->used < oldest) {
        oldest = b->used;
        victim = i;
      }
    }
    if (oldest == UINT64_MAX)
      return;                   /* all are waiting for a commit */
    free (w->refblock[victim]);
    w->refblock[victim] = NULL;
    w->refblocks_cached--;
  }
}

/* Brings block number i into memory.  *result is NULL if there is none. */
static int
get_block (struct writer *w, uint64_t i, struct refblock **result)
{
  struct refblock *b;
  uint64_t host;
  int r;

  *result = NULL;
  if (i >= w->reftable_entries)
    return 0;
  b = w->refblock[i];
  if (b == NULL) {
    host = be64_get (w->reftable[i]) & QCOW2_REFTABLE_OFFSET;
    if (host == 0)
      return 0;
    if (host & (cluster_size (w) - 1)
        || layer_file_size (w->layer) < cluster_size (w)
        || host > layer_file_size (w->layer) - cluster_size (w))
      return writer_fail (w, true, "a refcount block is misplaced");
    b = new_block (w, host);
    if (b == NULL)
      return -ENOMEM;
    r = store_pread (w->layer->file, b->data, cluster_size (w), host);
    if (r < 0) {
      free (b);
      return r;
    }
    w->refblock[i] = b;
    w->refblocks_cached++;
  }
  b->used = ++w->use_number;
  *result = b;
  return 0;
}

int
refcount_get (struct writer *w, uint64_t cluster, uint64_t *count)
{
  struct refblock *b;
  int r = get_block (w, cluster >> block_bits (w), &b);

  *count = 0;
  if (r == 0 && b)
    *count = block_get (w, b,
                        cluster & ((UINT64_C (1) << block_bits (w)) - 1));
  return r;
}

/* Sets a count that has a block. */
static int
set_count (struct writer *w, uint64_t cluster, uint64_t count)
{
  struct refblock *b;
  int r = get_block (w, cluster >> block_bits (w), &b);

  if (r < 0)
    return r;
  if (b == NULL)
    return writer_fail (w, true, "a cluster in use has no refcount block");
  block_set (w, b, cluster & ((UINT64_C (1) << block_bits (w)) - 1), count);
  return 0;
}

/* May a cluster be taken that its count says is free? */
static int
check_free (struct writer *w, uint64_t cluster)
{
  if (cluster == 0 || set_contains (&w->metadata, cluster))
    return writer_fail (w, true, "a cluster of metadata is marked as free");
  return 0;
}

/* Clusters from here on do not exist and cannot be made. */
static uint64_t
cluster_limit (const struct writer *w)
{
  if (w->can_grow)
    return (QCOW2_L2_OFFSET >> w->layer->geo.cluster_bits) + 1;
  return layer_file_size (w->layer) >> w->layer->geo.cluster_bits;
}

/* The file reaches at least to here from now on. */
static void
extend_to (struct writer *w, uint64_t cluster)
{
  const uint64_t size = cluster << w->layer->geo.cluster_bits;

  if (w->end < cluster)
    w->end = cluster;
  if (w->virgin < cluster)
    w->virgin = cluster;
  if (layer_file_size (w->layer) < size)
    atomic_store_explicit (&w->layer->file_size, size, memory_order_relaxed);
}

static int
flush_file (struct writer *w)
{
  const int r = store_flush (w->layer->file);

  if (r < 0 && !MUTANT (forget_failed_link))
    writer_fail (w, false, "flushing the image file failed");
  return r;
}

/* Makes the table larger, so that it has an entry for block "needed". */
static int
grow_table (struct writer *w, uint64_t needed)
{
  struct layer *layer = w->layer;
  const unsigned bits = layer->geo.cluster_bits;
  const uint64_t per_block = UINT64_C (1) << block_bits (w);
  const uint64_t old_entries = w->reftable_entries;
  const uint64_t start = old_entries << block_bits (w);
  uint64_t entries = needed + 1, blocks, table_clusters, area;
  CLEANUP_FREE be64 *table = NULL;
  struct refblock **slots = NULL, *b;
  struct {
    be64 offset;
    be32 clusters;
  } __attribute__ ((packed)) patch;
  int r;

  /* Room to grow by half, and for the blocks that count the new area, which
   * begins where the old table's reach ends.
   */
  entries += entries / 2;
  for (blocks = 1;; blocks++) {
    if (entries < old_entries + blocks)
      entries = old_entries + blocks;
    table_clusters = (entries * sizeof (be64) + cluster_size (w) - 1) >> bits;
    area = blocks + table_clusters;
    if (area <= blocks * per_block)
      break;
  }
  if (table_clusters << bits > QCOW2_MAX_REFTABLE_BYTES
      || start + area > cluster_limit (w))
    return -ENOSPC;
  for (uint64_t c = start; c < start + area; c++)
    if ((r = check_free (w, c)) < 0)
      return r;

  entries = (table_clusters << bits) / sizeof (be64);
  table = calloc (entries, sizeof *table);
  slots = calloc (entries, sizeof *slots);
  if (table == NULL || slots == NULL) {
    free (slots);
    return -ENOMEM;
  }
  memcpy (table, w->reftable, old_entries * sizeof *table);
  memcpy (slots, w->refblock, old_entries * sizeof *slots);

  for (uint64_t i = 0; i < blocks; i++) {
    b = new_block (w, (start + i) << bits);
    if (b == NULL) {
      r = -ENOMEM;
      goto error;
    }
    slots[old_entries + i] = b;
    table[old_entries + i] = be64_make (b->host);
    for (uint64_t j = 0; j < per_block && i * per_block + j < area; j++)
      block_set (w, b, j, 1);
    r = store_pwrite (layer->file, b->data, cluster_size (w), b->host);
    if (r < 0)
      goto error;
  }
  r = store_pwrite (layer->file, table, table_clusters << bits,
                    (start + blocks) << bits);
  if (r < 0 || (!MUTANT (link_table_early) && (r = flush_file (w)) < 0))
    goto error;

  patch.offset = be64_make ((start + blocks) << bits);
  patch.clusters = be32_make (table_clusters);
  if (MUTANT (patch_in_two))
    store_pwrite (layer->file, &patch, sizeof patch.offset,
                  offsetof (struct qcow2_header, refcount_table_offset));
  r = commit_patch_header (w, offsetof (struct qcow2_header,
                                        refcount_table_offset),
                           &patch, sizeof patch);
  if (r < 0)
    goto error;

  /* From here on nothing fails: the new table is the table. */
  extend_to (w, start + area);
  w->refblocks_cached += blocks;
  for (uint64_t c = 0; c < w->reftable_clusters; c++)
    metadata_remove (w, (w->reftable_offset >> bits) + c);
  {
    const uint64_t old_offset = w->reftable_offset;
    const uint64_t old_clusters = w->reftable_clusters;
    be64 *old = w->reftable;

    w->reftable = table;
    table = old;                /* freed on the way out */
    free (w->refblock);
    w->refblock = slots;
    w->reftable_entries = entries;
    w->reftable_offset = (start + blocks) << bits;
    w->reftable_clusters = table_clusters;
    layer->header.reftable_offset = w->reftable_offset;
    layer->header.reftable_clusters = w->reftable_clusters;
    for (uint64_t c = 0; c < area; c++)
      if (metadata_add (w, start + c) < 0)
        return writer_fail (w, false, "out of memory");
    return refcount_release (w, old_offset, old_clusters << bits);
  }

 error:
  for (uint64_t i = old_entries; i < old_entries + blocks; i++)
    if (slots[i]) {
      struct refblock **p = &w->dirty_refblocks;

      while (*p && *p != slots[i])
        p = &(*p)->dirty_next;
      if (*p)
        *p = slots[i]->dirty_next;
      free (slots[i]);
    }
  free (slots);
  return r;
}

/* Makes block number i, which is not there.  It takes the first of the
 * clusters that it counts, all of which are free.
 */
static int
create_block (struct writer *w, uint64_t i)
{
  struct layer *layer = w->layer;
  const uint64_t cluster = i << block_bits (w);
  const uint64_t host = cluster << layer->geo.cluster_bits;
  const be64 entry = be64_make (host);
  struct refblock *b;
  int r;

  if (i >= w->reftable_entries)
    return grow_table (w, i);   /* which also makes the block */
  if (cluster >= cluster_limit (w))
    return -ENOSPC;
  if ((r = check_free (w, cluster)) < 0)
    return r;
  if ((r = metadata_add (w, cluster)) < 0)
    return r;
  b = new_block (w, host);
  if (b == NULL) {
    r = -ENOMEM;
    goto error;
  }
  /* Count itself, without making it wait for a commit. */
  block_set (w, b, 0, 1);
  w->dirty_refblocks = b->dirty_next;
  memset (b->dirty, 0, sizeof b->dirty);
  b->is_dirty = false;

  r = store_pwrite (layer->file, b->data, cluster_size (w), host);
  if (r < 0 || (!MUTANT (link_block_early) && (r = flush_file (w)) < 0))
    goto error;
  r = store_pwrite (layer->file, &entry, sizeof entry,
                    w->reftable_offset + i * sizeof entry);
  if (r < 0 || (r = flush_file (w)) < 0) {
    /* The entry may be there or not: only a new look at the file tells. */
    writer_fail (w, false, "the refcount table could not be written");
    goto error;
  }
  w->reftable[i] = entry;
  w->refblock[i] = b;
  w->refblocks_cached++;
  b->used = ++w->use_number;
  extend_to (w, cluster + 1);
  return 0;

 error:
  free (b);
  metadata_remove (w, cluster);
  return r;
}

/* --- the allocator --- */

/* Finds the first free cluster at or after the hint. */
static int
find_free (struct writer *w, uint64_t *cluster)
{
  const uint64_t limit = cluster_limit (w);
  const uint64_t mask = (UINT64_C (1) << block_bits (w)) - 1;
  uint64_t c = w->free_hint;

  while (c < limit) {
    struct refblock *b;
    int r = get_block (w, c >> block_bits (w), &b);

    if (r == 0 && b == NULL)
      r = create_block (w, c >> block_bits (w));
    if (r < 0)
      return r;
    if (b == NULL)
      continue;                 /* look again: it has used up something */
    for (; c < limit; c++) {
      if (block_get (w, b, c & mask) == 0) {
        *cluster = c;
        return 0;
      }
      if ((c & mask) == mask) {
        c++;
        break;
      }
    }
    w->free_hint = c;
    refcount_trim_cache (w);
  }
  return -ENOSPC;
}

int
refcount_last_free (struct writer *w, uint64_t *offset)
{
  for (uint64_t c = cluster_limit (w); c-- > 0;) {
    uint64_t count;
    int r = refcount_get (w, c, &count);

    if (r < 0)
      return r;
    if (count == 0 && !set_contains (&w->metadata, c)) {
      *offset = c << w->layer->geo.cluster_bits;
      return 0;
    }
    refcount_trim_cache (w);
  }
  return -ENOSPC;
}

int
refcount_alloc (struct writer *w, uint64_t want, uint64_t *offset,
                uint64_t *got, bool *zero)
{
  const uint64_t mask = (UINT64_C (1) << block_bits (w)) - 1;
  const uint64_t limit = cluster_limit (w);
  struct refblock *b;
  uint64_t first = 0, n;
  int r;

  if ((r = find_free (w, &first)) < 0
      || (r = get_block (w, first >> block_bits (w), &b)) < 0)
    return r;

  /* A run ends at the latest with its block. */
  for (n = 0; n < want && first + n < limit; n++) {
    if (n > 0 && ((first + n) & mask) == 0)
      break;
    if (block_get (w, b, (first + n) & mask) != 0)
      break;
    if ((r = check_free (w, first + n)) < 0)
      return r;
  }
  for (uint64_t i = 0; i < n; i++)
    block_set (w, b, (first + i) & mask, 1);

  *zero = (first >= w->virgin && w->can_grow) || MUTANT (all_virgin);
  w->free_hint = first + n;
  extend_to (w, first + n);
  *offset = first << w->layer->geo.cluster_bits;
  *got = n;
  return 0;
}

void
refcount_unalloc (struct writer *w, uint64_t offset, uint64_t clusters)
{
  refcount_release (w, offset, clusters << w->layer->geo.cluster_bits);
}

int
refcount_release (struct writer *w, uint64_t offset, uint64_t length)
{
  const unsigned bits = w->layer->geo.cluster_bits;
  const uint64_t first = offset >> bits;
  const uint64_t last = (offset + length - 1) >> bits;
  uint64_t count;
  int r;

  /* What can fail comes first: this brings the blocks into memory, where
   * they stay until somebody looks for free clusters.
   */
  for (uint64_t c = first; c <= last; c++) {
    if ((r = refcount_get (w, c, &count)) < 0)
      return r;
    if (count == 0)
      return writer_fail (w, true, "a cluster in use has a refcount of 0");
  }
  for (uint64_t c = first; c <= last; c++) {
    if ((r = refcount_get (w, c, &count)) < 0
        || (r = set_count (w, c, count - 1)) < 0)
      return r;
    if (count == 1 && c < w->free_hint)
      w->free_hint = c;
  }
  return 0;
}

int
refcount_repair (struct writer *w, const uint32_t *counts, uint64_t clusters)
{
  const unsigned order = w->layer->header.refcount_order;
  const uint64_t max =
    order == 6 ? UINT64_MAX : (UINT64_C (1) << (1 << order)) - 1;

  for (uint64_t c = 0; c < clusters; c++) {
    struct refblock *b;
    int r = get_block (w, c >> block_bits (w), &b);
    const uint64_t index = c & ((UINT64_C (1) << block_bits (w)) - 1);

    if (r < 0)
      return r;
    if (counts[c] > max || (counts[c] && b == NULL))
      return -ENOTSUP;
    if (b && block_get (w, b, index) != counts[c])
      block_set (w, b, index, counts[c]);
    if (index == 0)
      refcount_trim_cache (w);
  }
  return 0;
}

/* --- start and end --- */

/* Puts the clusters of a table into the set; they must not be in it. */
static int
claim (struct writer *w, uint64_t offset, uint64_t bytes)
{
  const unsigned bits = w->layer->geo.cluster_bits;

  if (bytes == 0)
    return 0;
  for (uint64_t c = offset >> bits; c <= (offset + bytes - 1) >> bits; c++) {
    int r;

    if (set_contains (&w->metadata, c))
      return writer_fail (w, true, "two metadata structures overlap");
    if ((r = metadata_add (w, c)) < 0)
      return r;
  }
  return 0;
}

static int
claim_bitmap_range (void *opaque, const char *what, uint64_t offset,
                    uint64_t length)
{
  (void) what;
  return claim (opaque, offset, length);
}

/* The L1 table of a snapshot. */
static int
claim_snapshot (struct writer *w, const struct snapshot *s)
{
  const uint64_t bytes = (uint64_t) s->l1_entries * sizeof (be64);
  const uint64_t size = layer_file_size (w->layer);

  if (bytes > QCOW2_MAX_L1_BYTES || s->l1_offset > size
      || bytes > size - s->l1_offset
      || s->l1_offset & (cluster_size (w) - 1))
    return writer_fail (w, true, "the L1 table of a snapshot is misplaced");
  return claim (w, s->l1_offset, bytes);
}

/* Calls fn for the cluster of each L2 table of a snapshot. */
static int
walk_snapshot_tables (struct writer *w, const struct snapshot *s,
                      int (*fn) (struct writer *w, uint64_t cluster))
{
  const size_t bytes = s->l1_entries * sizeof (be64);
  CLEANUP_FREE be64 *l1 = NULL;
  int r;

  l1 = malloc (bytes + 1);
  if (l1 == NULL)
    return -ENOMEM;
  r = store_pread (w->layer->file, l1, bytes, s->l1_offset);
  for (uint32_t i = 0; r == 0 && i < s->l1_entries; i++) {
    const uint64_t host = be64_get (l1[i]) & QCOW2_L1_OFFSET;

    if (host)
      r = fn (w, host >> w->layer->geo.cluster_bits);
  }
  return r;
}

/* While the set has no L2 tables yet. */
static int
check_snapshot_table (struct writer *w, uint64_t cluster)
{
  if (set_contains (&w->metadata, cluster))
    return writer_fail (w, true, "two metadata structures overlap");
  return 0;
}

/* A snapshot's L2 table may be that of others too, and stays what it is as
 * long as we write.
 */
static int
add_snapshot_table (struct writer *w, uint64_t cluster)
{
  CLEANUP_FREE uint64_t *old = NULL;
  int r;

  if ((r = set_reserve (&w->snapshot_tables, &old)) < 0)
    return r;
  set_insert (&w->snapshot_tables, cluster);
  return metadata_add (w, cluster);
}

bool
is_snapshot_table (const struct writer *w, uint64_t cluster)
{
  return set_contains (&w->snapshot_tables, cluster);
}

static int
claim_tables (struct writer *w)
{
  const struct layer *layer = w->layer;
  const struct header *h = &layer->header;
  const uint64_t size = cluster_size (w);
  const struct snapshot_list *list = layer->snapshots;
  int r;

  if ((r = claim (w, 0, size)) < 0
      || (r = claim (w, h->l1_offset, h->l1_entries * sizeof (be64))) < 0
      || (r = claim (w, h->reftable_offset,
                     (uint64_t) h->reftable_clusters * size)) < 0)
    return r;
  if (list) {
    if ((r = claim (w, h->snapshots_offset, list->bytes)) < 0)
      return r;
    for (size_t i = 0; i < list->count; i++)
      if ((r = claim_snapshot (w, &list->snapshot[i])) < 0)
        return r;
  }
  for (uint64_t i = 0; i < w->reftable_entries; i++) {
    const uint64_t host = be64_get (w->reftable[i]) & QCOW2_REFTABLE_OFFSET;

    if (host && (r = claim (w, host, size)) < 0)
      return r;
  }
  if ((r = bitmap_walk_ranges (w->layer, claim_bitmap_range, w)) < 0)
    return r;
  for (size_t i = 0; list && i < list->count; i++)
    if ((r = walk_snapshot_tables (w, &list->snapshot[i],
                                   check_snapshot_table)) < 0)
      return r;
  for (uint32_t i = 0; i < layer->l1_entries; i++) {
    const uint64_t host = layer_l2_offset (layer, i);

    if (host && (r = claim (w, host, size)) < 0)
      return r;
  }
  for (size_t i = 0; list && i < list->count; i++)
    if ((r = walk_snapshot_tables (w, &list->snapshot[i],
                                   add_snapshot_table)) < 0)
      return r;
  return 0;
}

int
refcount_open (struct writer *w)
{
  struct layer *layer = w->layer;
  const struct header *h = &layer->header;
  const uint64_t bytes =
    (uint64_t) h->reftable_clusters << layer->geo.cluster_bits;
  uint64_t size;
  int r;

  /* As it is now, not as it was when the image was opened: what lies past it
   * counts as zeros.
   */
  if ((r = store_get_size (layer->file, &size)) < 0)
    return r;
  atomic_store_explicit (&layer->file_size, size, memory_order_relaxed);
  if (h->reftable_offset > size || bytes > size - h->reftable_offset) {
    report_error ("%s: the refcount table lies past the end of the file",
                  layer->file->name);
    return -EIO;
  }
  w->reftable_offset = h->reftable_offset;
  w->reftable_clusters = h->reftable_clusters;
  w->reftable_entries = bytes / sizeof (be64);
  w->reftable = malloc (bytes);
  w->refblock = calloc (w->reftable_entries, sizeof *w->refblock);
  if (w->reftable == NULL || w->refblock == NULL)
    return -ENOMEM;
  r = store_pread (layer->file, w->reftable, bytes, h->reftable_offset);
  if (r < 0)
    return r;

  w->start_size = size;
  w->start_end = w->end = w->virgin =
    (size + cluster_size (w) - 1) >> layer->geo.cluster_bits;
  return claim_tables (w);
}

void
refcount_close (struct writer *w)
{
  for (uint64_t i = 0; w->refblock && i < w->reftable_entries; i++)
    free (w->refblock[i]);
  free (w->refblock);
  free (w->reftable);
  free (w->metadata.slot);
  w->refblock = NULL;
  w->reftable = NULL;
  w->refblocks_cached = 0;
  w->dirty_refblocks = NULL;
  memset (&w->metadata, 0, sizeof w->metadata);
  free (w->snapshot_tables.slot);
  memset (&w->snapshot_tables, 0, sizeof w->snapshot_tables);
}
