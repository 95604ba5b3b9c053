/* qcow2ext: refcounts of host clusters, in memory and on disk.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "disk/refcount.h"
#include "space/refcounts.h"

/* Bytes of clean refcount blocks that stay in memory. */
#define REFBLOCK_CACHE (UINT64_C (8) << 20)

/* --- counts within a block --- */

uint64_t
refblock_get (const struct refcounts *rc, const struct refblock *b,
              uint64_t index)
{
  return refcount_decode (b->data, rc->header->refcount_order, index);
}

void
refblock_put (const struct refcounts *rc, struct refblock *b, uint64_t index,
              uint64_t count)
{
  const unsigned order = rc->header->refcount_order;

  refcount_encode (b->data, order, index, count);
  set_bit (b->dirty, (index << order) / 8 / QCOW2_SECTOR_SIZE);
}

/* --- the list of clean blocks --- */

static bool
is_clean (const struct refblock *b)
{
  return !b->is_dirty && !b->in_commit;
}

static void
link_newest (struct refcounts *rc, struct refblock *b)
{
  b->newer = NULL;
  b->older = rc->newest;
  *(b->older ? &b->older->newer : &rc->oldest) = b;
  rc->newest = b;
}

static void
unlink_clean (struct refcounts *rc, struct refblock *b)
{
  *(b->newer ? &b->newer->older : &rc->newest) = b->older;
  *(b->older ? &b->older->newer : &rc->oldest) = b->newer;
}

void
refblock_mark_dirty (struct refcounts *rc, struct refblock *b)
{
  if (b->is_dirty)
    return;
  if (is_clean (b))
    unlink_clean (rc, b);
  b->is_dirty = true;
  b->next_dirty = rc->dirty;
  rc->dirty = b;
}

void
refblock_set (struct refcounts *rc, struct refblock *b, uint64_t index,
              uint64_t count)
{
  refblock_put (rc, b, index, count);
  refblock_mark_dirty (rc, b);
}

/* --- blocks --- */

struct refblock *
refblock_new (const struct refcounts *rc, uint64_t number, uint64_t host)
{
  struct refblock *b = calloc (1, sizeof *b + refcounts_cluster_size (rc));

  if (b) {
    b->number = number;
    b->host = host;
  }
  return b;
}

void
refcounts_insert_block (struct refcounts *rc, struct refblock *b)
{
  rc->block[b->number] = b;
  rc->blocks_cached++;
  link_newest (rc, b);
}

void
refcounts_trim_cache (struct refcounts *rc)
{
  const size_t max = REFBLOCK_CACHE >> rc->end.cluster_bits;
  struct refblock *b;

  while (rc->blocks_cached > (max > 4 ? max : 4) && (b = rc->oldest)) {
    unlink_clean (rc, b);
    rc->block[b->number] = NULL;
    rc->blocks_cached--;
    free (b);
  }
}

int
refcounts_get_block (struct refcounts *rc, uint64_t i,
                     struct refblock **result)
{
  const uint64_t size = refcounts_cluster_size (rc);
  const uint64_t file_size = file_end_size (&rc->end);
  struct refblock *b;
  uint64_t host;
  int r;

  *result = NULL;
  if (i >= rc->entries)
    return 0;
  b = rc->block[i];
  if (b == NULL) {
    host = be64_get (rc->table[i]) & QCOW2_REFTABLE_OFFSET;
    if (host == 0)
      return 0;
    if (host & (size - 1) || file_size < size || host > file_size - size)
      return health_mark_corrupt (rc->health, "a refcount block is misplaced");
    b = refblock_new (rc, i, host);
    if (b == NULL)
      return -ENOMEM;
    r = store_pread (rc->file, b->data, size, host);
    if (r < 0) {
      free (b);
      return r;
    }
    refcounts_insert_block (rc, b);
  }
  else if (is_clean (b) && b != rc->newest) {
    unlink_clean (rc, b);
    link_newest (rc, b);
  }
  *result = b;
  return 0;
}

const char *
refcounts_why_not_free (const struct refcounts *rc, uint64_t cluster)
{
  if (cluster == 0
      || metadata_map_overlaps (rc->metadata, cluster << rc->end.cluster_bits,
                                1))
    return "a cluster of metadata is marked as free";
  if (cluster >= rc->metadata->first_lost)
    return "an L2 table is missing: it lies past the end of the file";
  return NULL;
}

int
refcounts_check_free (struct refcounts *rc, uint64_t cluster)
{
  const char *why = refcounts_why_not_free (rc, cluster);

  return why ? health_mark_corrupt (rc->health, why) : 0;
}

/* --- counts --- */

static uint64_t
index_in_block (const struct refcounts *rc, uint64_t cluster)
{
  return cluster & ((UINT64_C (1) << refcounts_block_bits (rc)) - 1);
}

int
refcounts_get (struct refcounts *rc, uint64_t cluster, uint64_t *count)
{
  struct refblock *b;
  int r = refcounts_get_block (rc, cluster >> refcounts_block_bits (rc), &b);

  *count = 0;
  if (r == 0 && b)
    *count = refblock_get (rc, b, index_in_block (rc, cluster));
  return r;
}

/* Sets a count that has a block. */
static int
set_count (struct refcounts *rc, uint64_t cluster, uint64_t count)
{
  struct refblock *b;
  int r = refcounts_get_block (rc, cluster >> refcounts_block_bits (rc), &b);

  if (r < 0)
    return r;
  if (b == NULL)
    return health_mark_corrupt (rc->health,
                                "a cluster in use has no refcount block");
  refblock_set (rc, b, index_in_block (rc, cluster), count);
  return 0;
}

void
refcounts_close_cursor (struct refcounts *rc, uint64_t offset,
                        uint64_t length)
{
  const unsigned bits = rc->end.cluster_bits;

  if (rc->cursor && rc->cursor >> bits >= offset >> bits
      && rc->cursor >> bits <= (offset + length - 1) >> bits)
    rc->cursor = 0;
}

static int
check_used (struct refcounts *rc, uint64_t first, uint64_t last)
{
  for (uint64_t c = first; c <= last; c++) {
    uint64_t count;
    const int r = refcounts_get (rc, c, &count);

    if (r < 0)
      return r;
    if (count == 0)
      return health_mark_corrupt (rc->health,
                                  "a cluster in use has a refcount of 0");
  }
  return 0;
}

int
refcounts_check_used (struct refcounts *rc, uint64_t offset, uint64_t length)
{
  const unsigned bits = rc->end.cluster_bits;

  LOCK_FOR_SCOPE (&rc->lock);
  return check_used (rc, offset >> bits, (offset + length - 1) >> bits);
}

int
refcounts_drop (struct refcounts *rc, uint64_t offset, uint64_t length)
{
  const unsigned bits = rc->end.cluster_bits;
  const uint64_t first = offset >> bits;
  const uint64_t last = (offset + length - 1) >> bits;
  uint64_t count;
  int r;

  /* What can fail comes first: this brings the blocks into memory, where they
   * stay until the allocator looks for free clusters.
   */
  if ((r = check_used (rc, first, last)) < 0)
    return r;
  refcounts_close_cursor (rc, offset, length);
  for (uint64_t c = first; c <= last; c++) {
    if ((r = refcounts_get (rc, c, &count)) < 0
        || (r = set_count (rc, c, count - 1)) < 0)
      return r;
    if (count == 1 && c < rc->free_hint)
      rc->free_hint = c;
  }
  return 0;
}

int
refcounts_repair (struct refcounts *rc, const uint32_t *counts,
                  uint64_t clusters)
{
  const unsigned order = rc->header->refcount_order;
  const uint64_t max =
    order == 6 ? UINT64_MAX : (UINT64_C (1) << (1 << order)) - 1;

  for (uint64_t c = 0; c < clusters; c++) {
    const uint64_t index = index_in_block (rc, c);
    struct refblock *b;
    int r = refcounts_get_block (rc, c >> refcounts_block_bits (rc), &b);

    if (r < 0)
      return r;
    if (counts[c] > max || (counts[c] && b == NULL))
      return -ENOTSUP;
    if (b && refblock_get (rc, b, index) != counts[c])
      refblock_set (rc, b, index, counts[c]);
    if (index == 0)
      refcounts_trim_cache (rc);
  }
  return 0;
}

/* --- for commit --- */

static int
collect_block (const struct refcounts *rc, const struct refblock *rb,
               struct batch *batch)
{
  const size_t sectors = refcounts_cluster_size (rc) / QCOW2_SECTOR_SIZE;
  size_t s = 0, n;

  for (; (n = next_set_run (rb->dirty, sectors, &s)) > 0; s += n) {
    void *data;
    const int r =
      batch_add (batch, BATCH_NEW, rb->host + s * QCOW2_SECTOR_SIZE,
                 n * QCOW2_SECTOR_SIZE, &data);

    if (r < 0)
      return r;
    memcpy (data, rb->data + s * QCOW2_SECTOR_SIZE, n * QCOW2_SECTOR_SIZE);
  }
  return 0;
}

static int
collect (void *self, struct batch *batch)
{
  struct refcounts *rc = self;
  struct refblock *rb;
  int r;

  LOCK_FOR_SCOPE (&rc->lock);
  for (rb = rc->dirty; rb; rb = rb->next_dirty)
    if ((r = collect_block (rc, rb, batch)) < 0)
      return r;
  while ((rb = rc->dirty) != NULL) {
    rc->dirty = rb->next_dirty;
    memset (rb->dirty, 0, sizeof rb->dirty);
    rb->is_dirty = false;
    rb->in_commit = true;       /* and so it is not clean */
    rb->next_in_commit = rc->in_commit;
    rc->in_commit = rb;
  }
  return 0;
}

/* What did not reach the disk is marked as a whole: more than was changed, but
 * the next commit then writes the truth.
 */
static void
done (void *self, enum commit_progress progress)
{
  struct refcounts *rc = self;
  const size_t sectors = refcounts_cluster_size (rc) / QCOW2_SECTOR_SIZE;
  struct refblock *rb;

  LOCK_FOR_SCOPE (&rc->lock);
  while ((rb = rc->in_commit) != NULL) {
    rc->in_commit = rb->next_in_commit;
    if (progress != COMMIT_ALL) {
      for (size_t s = 0; s < sectors; s++)
        set_bit (rb->dirty, s);
      refblock_mark_dirty (rc, rb);
    }
    rb->in_commit = false;
    if (is_clean (rb))
      link_newest (rc, rb);
  }
}

static bool
is_dirty (void *self)
{
  struct refcounts *rc = self;

  LOCK_FOR_SCOPE (&rc->lock);
  return rc->dirty != NULL;
}

struct commit_source
refcounts_source (struct refcounts *rc)
{
  return (struct commit_source) {
    .collect = collect, .done = done, .is_dirty = is_dirty, .self = rc,
  };
}

/* --- start and end --- */

void
refcounts_init (struct refcounts *rc, struct health *health,
                struct metadata_map *metadata, _Atomic uint64_t *file_size)
{
  *rc = (struct refcounts) {
    .health = health, .file = health->file, .header = health->header,
    .metadata = metadata,
    .end = { .cluster_bits = health->header->cluster_bits,
             .file_size = file_size },
  };
  pthread_mutex_init (&rc->lock, NULL);
  pthread_cond_init (&rc->made, NULL);
}

void
refcounts_destroy (struct refcounts *rc)
{
  refcounts_close (rc);
  pthread_cond_destroy (&rc->made);
  pthread_mutex_destroy (&rc->lock);
}

int
refcounts_open (struct refcounts *rc)
{
  const struct header *h = rc->header;
  const uint64_t bytes =
    (uint64_t) h->reftable_clusters << rc->end.cluster_bits;
  uint64_t size;
  int r;

  /* As it is now, not as it was when the image was opened: what lies past it
   * counts as zeros.
   */
  if ((r = store_get_size (rc->file, &size)) < 0)
    return r;
  if (h->reftable_offset > size || bytes > size - h->reftable_offset) {
    report_error ("%s: the refcount table lies past the end of the file",
                  rc->file->name);
    return -EIO;
  }
  rc->offset = h->reftable_offset;
  rc->clusters = h->reftable_clusters;
  rc->entries = bytes / sizeof (be64);
  rc->table = malloc (bytes);
  rc->block = calloc (rc->entries, sizeof *rc->block);
  if (rc->table == NULL || rc->block == NULL)
    return -ENOMEM;
  file_end_begin (&rc->end, size);
  return store_pread (rc->file, rc->table, bytes, h->reftable_offset);
}

void
refcounts_close (struct refcounts *rc)
{
  for (uint64_t i = 0; rc->block && i < rc->entries; i++)
    free (rc->block[i]);
  free (rc->block);
  free (rc->table);
  rc->block = NULL;
  rc->table = NULL;
  rc->blocks_cached = 0;
  rc->newest = rc->oldest = NULL;
  rc->dirty = NULL;
  rc->cursor = 0;
  rc->missing = 0;
  rc->ahead_failed = false;
}
