/* qcow2ext: the order in which metadata reaches the disk.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * This is the only place that orders metadata writes (but for what
 * refcount.c links on the spot).  One commit at a time does:
 *
 *   collect  under writer->lock, copies of all changes that are complete
 *   1        raised counts, new L2 tables that nothing refers to yet;
 *            then both files are flushed: guest data, too, is durable
 *   2        L2 entries and L1 entries; flush
 *   3        what these changes let go of may lose its references now, as
 *            soon as the requests have ended that may still look at it
 *
 * What completes after collect waits for the next commit: its data may have
 * missed the flush of step 1.  The life of a host range that is let go:
 *
 *   unlinked --collect, 2--> durable --flip--> grace --set empty--> released
 *
 * A commit that fails to write puts its changes back, and the next one tries
 * again: each step by itself leaves the image sound.  A flush that fails ends
 * all writing, for nobody knows what it left behind.
 *
 * Callers share: whoever comes while a commit runs waits for the next one,
 * which one of those who wait starts.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "data/compress.h"
#include "base/mutant.h"
#include "image/writer.h"

/* Bytes that are to be written to the image file. */
struct patch {
  struct patch *next;
  uint64_t offset;
  size_t length;
  uint8_t data[];
};

struct patch_list {
  struct patch *first, **last;
};

/* The changes that one commit writes. */
struct batch {
  struct patch_list before;     /* step 1 */
  struct patch_list pointers;   /* step 2 */
  struct l2_table *tables;      /* by busy_next */
  struct refblock *refblocks;   /* likewise */
  bool l1;                      /* it has L1 entries */
  struct freed_list unlinked;
};

/* --- what has changed --- */

void
commit_mark_table (struct writer *w, struct l2_table *t)
{
  if (t->is_dirty)
    return;
  t->is_dirty = true;
  t->dirty_next = w->dirty_tables;
  w->dirty_tables = t;
  w->dirty_bytes += t->bytes;
}

void
commit_mark_refblock (struct writer *w, struct refblock *b)
{
  if (b->is_dirty)
    return;
  b->is_dirty = true;
  b->dirty_next = w->dirty_refblocks;
  w->dirty_refblocks = b;
}

void
commit_mark_l1 (struct writer *w, uint32_t l1_index)
{
  const uint32_t sector = l1_index / (QCOW2_SECTOR_SIZE / sizeof (be64));

  w->l1_dirty[sector / 64] |= UINT64_C (1) << (sector % 64);
  w->l1_is_dirty = true;
}

bool
commit_is_dirty (const struct writer *w)
{
  return w->dirty_tables || w->dirty_refblocks || w->l1_is_dirty
    || w->unlinked.count;
}

/* --- lists of what is let go --- */

static int
freed_reserve (struct freed_list *list, size_t n)
{
  struct freed *item;
  size_t room = list->room ? list->room : 16;

  if (list->count + n <= list->room)
    return 0;
  while (room < list->count + n)
    room *= 2;
  item = realloc (list->item, room * sizeof *item);
  if (item == NULL)
    return -ENOMEM;
  list->item = item;
  list->room = room;
  return 0;
}

int
commit_reserve_frees (struct writer *w, size_t n)
{
  return freed_reserve (&w->unlinked, n);
}

int
commit_free_later (struct writer *w, uint64_t offset, uint64_t length,
                   bool table)
{
  struct freed *last;
  int r;

  if (MUTANT (reuse_before_durable))
    return refcount_release (w, offset, length);
  if (MUTANT (discard_early) && !table)
    store_discard (w->layer->file, length, offset);
  if (w->unlinked.count) {
    last = &w->unlinked.item[w->unlinked.count - 1];
    if (last->offset + last->length == offset && last->table == table
        && (offset & (layer_cluster_size (w->layer) - 1)) == 0) {
      last->length += length;
      w->unlinked_bytes += length;
      w->freed_bytes += length;
      return 0;
    }
  }
  if ((r = freed_reserve (&w->unlinked, 1)) < 0)
    return r;
  w->unlinked.item[w->unlinked.count++] =
    (struct freed) { .offset = offset, .length = length, .table = table };
  w->unlinked_bytes += length;
  w->freed_bytes += length;
  return 0;
}

/* Moves all of "from" to the end of "to".  If there is no memory for that,
 * they stay where they are, and only wait longer.
 */
static int
freed_move (struct freed_list *to, struct freed_list *from)
{
  if (to->count == 0) {
    struct freed_list empty = *to;

    *to = *from;
    *from = empty;
    return 0;
  }
  if (freed_reserve (to, from->count) < 0)
    return -ENOMEM;
  if (from->count)
    memcpy (to->item + to->count, from->item,
            from->count * sizeof *from->item);
  to->count += from->count;
  from->count = 0;
  return 0;
}

static void
discard (struct writer *w, uint64_t start, uint64_t n)
{
  const unsigned bits = w->layer->geo.cluster_bits;

  pthread_mutex_unlock (&w->lock);
  store_discard (w->layer->file, n << bits, start << bits);
  pthread_mutex_lock (&w->lock);
}

/* Gives the space of clusters back that are about to become free.  Their
 * counts are still 1, so nobody can take them while the lock is let go of.
 */
static void
discard_released (struct writer *w)
{
  const unsigned bits = w->layer->geo.cluster_bits;

  for (size_t i = 0; i < w->grace.count; i++) {
    const struct freed *f = &w->grace.item[i];
    const uint64_t last = (f->offset + f->length - 1) >> bits;
    uint64_t start = 0, n = 0;

    for (uint64_t c = f->offset >> bits; c <= last; c++) {
      uint64_t count;

      if (refcount_get (w, c, &count) == 0 && count == 1) {
        if (n++ == 0)
          start = c;
        continue;
      }
      if (n)
        discard (w, start, n);
      n = 0;
    }
    if (n)
      discard (w, start, n);
  }
}

/* Tables that only we referred to are metadata no more; those that a snapshot
 * shares stay it.
 */
static int
forget_tables (struct writer *w, const struct freed *f)
{
  const unsigned bits = w->layer->geo.cluster_bits;
  uint64_t count;
  int r;

  for (uint64_t c = f->offset >> bits; c < (f->offset + f->length) >> bits;
       c++) {
    if ((r = refcount_get (w, c, &count)) < 0)
      return r;
    if (count == 1)
      metadata_remove (w, c);
  }
  return 0;
}

/* Whatever the counts say, a snapshot's table must not become free. */
static int
check_shared_tables (struct writer *w, const struct freed *f)
{
  const unsigned bits = w->layer->geo.cluster_bits;
  uint64_t count;
  int r;

  for (uint64_t c = f->offset >> bits; c < (f->offset + f->length) >> bits;
       c++) {
    if (!is_snapshot_table (w, c))
      continue;
    if ((r = refcount_get (w, c, &count)) < 0)
      return r;
    if (count <= 1)
      return writer_fail (w, true, "the refcount of a snapshot's table is too "
                          "low");
  }
  return 0;
}

void
commit_reap (struct writer *w)
{
  while (!w->reaping) {
    if (w->grace.count == 0) {
      if (w->durable.count == 0
          || !inflight_flip (&w->inflight, &w->grace_set)
          || freed_move (&w->grace, &w->durable) < 0)
        return;
    }
    if ((!MUTANT (no_grace)
         && !inflight_is_empty (&w->inflight, w->grace_set)) || w->failed)
      return;

    for (size_t i = 0; i < w->grace.count; i++) {
      const struct freed *f = &w->grace.item[i];

      if (!f->table && metadata_contains (w, f->offset, f->length)) {
        writer_fail (w, true, "guest data was where metadata is");
        return;
      }
      if (f->table && check_shared_tables (w, f) < 0)
        return;
    }
    w->reaping = true;
    discard_released (w);
    w->reaping = false;
    /* What cannot be released now is tried again, and nothing twice. */
    while (w->grace.count) {
      const struct freed *f = &w->grace.item[w->grace.count - 1];

      decoded_cache_drop_range (w->layer->decoded, w->layer, f->offset,
                                f->length);
      if ((f->table && forget_tables (w, f) < 0)
          || refcount_release (w, f->offset, f->length) < 0)
        return;
      w->freed_bytes -= f->length;
      w->grace.count--;
      if (MUTANT (discard_late)) {
        const uint64_t cluster = f->offset >> w->layer->geo.cluster_bits;
        uint64_t count;

        w->reaping = true;
        if (refcount_get (w, cluster, &count) == 0 && count == 0)
          discard (w, cluster, 1);
        w->reaping = false;
      }
    }
  }
}

/* --- collecting --- */

static int
add_patch (struct patch_list *list, uint64_t offset, size_t length,
           struct patch **result)
{
  struct patch *p = malloc (sizeof *p + length);

  if (p == NULL)
    return -ENOMEM;
  p->next = NULL;
  p->offset = offset;
  p->length = length;
  *list->last = p;
  list->last = &p->next;
  *result = p;
  return 0;
}

static void
free_patches (struct patch_list *list)
{
  while (list->first) {
    struct patch *p = list->first;

    list->first = p->next;
    free (p);
  }
}

static int
collect_table (const struct l2_table *t, struct batch *b)
{
  const size_t sectors = layer_cluster_size (t->layer) / QCOW2_SECTOR_SIZE;
  struct patch *p;
  size_t s = 0, n;
  int r;

  if (t->fresh) {
    r = add_patch (MUTANT (table_with_pointer) ? &b->pointers : &b->before,
                   t->host, sectors * QCOW2_SECTOR_SIZE, &p);
    if (r == 0)
      l2_table_encode (t, 0, sectors, p->data);
    return r;
  }
  for (; (n = next_set_run (t->dirty, sectors, &s)) > 0; s += n) {
    r = add_patch (&b->pointers, t->host + s * QCOW2_SECTOR_SIZE,
                   n * QCOW2_SECTOR_SIZE, &p);
    if (r < 0)
      return r;
    l2_table_encode (t, s, n, p->data);
  }
  return 0;
}

static int
collect_refblock (const struct writer *w, const struct refblock *rb,
                  struct batch *b)
{
  const size_t sectors = layer_cluster_size (w->layer) / QCOW2_SECTOR_SIZE;
  struct patch *p;
  size_t s = 0, n;
  int r;

  for (; (n = next_set_run (rb->dirty, sectors, &s)) > 0; s += n) {
    r = add_patch (MUTANT (counts_with_pointers) ? &b->pointers : &b->before,
                   rb->host + s * QCOW2_SECTOR_SIZE, n * QCOW2_SECTOR_SIZE,
                   &p);
    if (r < 0)
      return r;
    memcpy (p->data, rb->data + s * QCOW2_SECTOR_SIZE, p->length);
  }
  return 0;
}

static size_t
l1_sectors (const struct layer *layer)
{
  return ((size_t) layer->l1_entries * sizeof (be64) + QCOW2_SECTOR_SIZE - 1)
    / QCOW2_SECTOR_SIZE;
}

static int
collect_l1 (const struct writer *w, struct batch *b)
{
  const struct layer *layer = w->layer;
  const size_t bytes = (size_t) layer->l1_entries * sizeof (be64);
  struct patch *p;
  size_t s = 0, n;
  int r;

  for (; (n = next_set_run (w->l1_dirty, l1_sectors (layer), &s)) > 0; s += n) {
    const size_t start = s * QCOW2_SECTOR_SIZE;
    size_t length = n * QCOW2_SECTOR_SIZE;

    if (length > bytes - start)
      length = bytes - start;
    r = add_patch (&b->pointers, layer->header.l1_offset + start, length, &p);
    if (r < 0)
      return r;
    memcpy (p->data, (const uint8_t *) layer->l1 + start, length);
  }
  return 0;
}

/* Copies all changes into the batch, which owns them from then on: what
 * changes later is the next one's.  If it fails, nothing has changed.
 */
static int
collect (struct writer *w, struct batch *b)
{
  struct brlock *lock = table_cache_lock (w->layer->tables);
  struct l2_table *t;
  struct refblock *rb;
  int r;

  for (rb = w->dirty_refblocks; rb; rb = rb->dirty_next)
    if ((r = collect_refblock (w, rb, b)) < 0)
      return r;
  for (t = w->dirty_tables; t; t = t->dirty_next)
    if ((r = collect_table (t, b)) < 0)
      return r;
  if (w->l1_is_dirty && (r = collect_l1 (w, b)) < 0)
    return r;

  while ((rb = w->dirty_refblocks) != NULL) {
    w->dirty_refblocks = rb->dirty_next;
    memset (rb->dirty, 0, sizeof rb->dirty);
    rb->is_dirty = false;
    rb->busy = true;
    rb->busy_next = b->refblocks;
    b->refblocks = rb;
  }
  /* Whoever evicts tables must find each either dirty or busy. */
  brlock_write (lock);
  while ((t = w->dirty_tables) != NULL) {
    const size_t sectors = layer_cluster_size (w->layer) / QCOW2_SECTOR_SIZE;

    w->dirty_tables = t->dirty_next;
    memset (t->dirty, 0, (sectors + 63) / 64 * sizeof *t->dirty);
    t->was_fresh = t->fresh;
    t->is_dirty = t->fresh = false;
    t->busy = true;
    t->busy_next = b->tables;
    b->tables = t;
  }
  brlock_write_unlock (lock);
  w->dirty_bytes = 0;
  if (w->l1_is_dirty) {
    memset (w->l1_dirty, 0,
            (l1_sectors (w->layer) + 63) / 64 * sizeof *w->l1_dirty);
    w->l1_is_dirty = false;
    b->l1 = true;
  }
  b->unlinked = w->unlinked;
  memset (&w->unlinked, 0, sizeof w->unlinked);
  w->unlinked_bytes = 0;
  return 0;
}

/* How far a commit has come. */
enum progress { NOTHING, STEP_1, ALL };

/* Lets go of the batch.  If it did not reach the disk, all of it is marked
 * again: more than was changed, but the next commit then writes the truth.  A
 * table that was fresh is so no more after step 1: an L1 entry may refer to
 * it already.
 */
static void
release (struct writer *w, struct batch *b, enum progress progress)
{
  const bool written = progress == ALL || MUTANT (forget_failed_commit);
  const size_t sectors = layer_cluster_size (w->layer) / QCOW2_SECTOR_SIZE;
  struct brlock *lock = table_cache_lock (w->layer->tables);
  struct refblock *rb;
  struct l2_table *t;

  while ((rb = b->refblocks) != NULL) {
    b->refblocks = rb->busy_next;
    rb->busy = false;
    if (!written) {
      for (size_t s = 0; s < sectors; s++)
        rb->dirty[s / 64] |= UINT64_C (1) << (s % 64);
      commit_mark_refblock (w, rb);
    }
  }
  brlock_write (lock);
  while ((t = b->tables) != NULL) {
    b->tables = t->busy_next;
    t->busy = false;
    if (!written) {
      for (size_t s = 0; s < sectors; s++)
        t->dirty[s / 64] |= UINT64_C (1) << (s % 64);
      t->fresh |= t->was_fresh
        && (progress == NOTHING || MUTANT (fresh_again));
      commit_mark_table (w, t);
    }
  }
  brlock_write_unlock (lock);
  if (!written && b->l1)
    for (uint32_t i = 0; i < w->layer->l1_entries;
         i += QCOW2_SECTOR_SIZE / sizeof (be64))
      commit_mark_l1 (w, i);
  if (b->unlinked.count)        /* short of memory they leak, no more */
    freed_move (written ? &w->durable : &w->unlinked, &b->unlinked);
  free (b->unlinked.item);
  free_patches (&b->before);
  free_patches (&b->pointers);
}

/* --- the commit --- */

static int
write_patches (struct writer *w, const struct patch_list *list)
{
  for (const struct patch *p = list->first; p; p = p->next) {
    const int r = store_pwrite (w->layer->file, p->data, p->length,
                                p->offset);

    if (r < 0) {
      report_limited (&w->layer->limit, "%s: metadata could not be written: "
                      "%s", w->layer->file->name, strerror (-r));
      return r;
    }
  }
  return 0;
}

static int
flush_store (struct writer *w, struct store *store)
{
  const int r = store_flush (store);

  if (r < 0 && !MUTANT (forget_failed_flush)) {
    LOCK_FOR_SCOPE (&w->lock);
    writer_fail (w, false, "a flush failed, so what was written since the "
                 "last one may be lost");
  }
  return r;
}

/* Steps 1 and 2. */
static int
write_batch (struct writer *w, const struct batch *b,
             enum progress *progress)
{
  struct layer *layer = w->layer;
  int r;

  if ((r = write_patches (w, &b->before)) < 0)
    return r;
  if (layer->geo.has_data_file && !MUTANT (no_data_flush) && !MUTANT (collect_late)
      && (r = flush_store (w, layer->clusters)) < 0)
    return r;
  if ((!layer->geo.has_data_file || b->before.first)
      && !(MUTANT (no_image_flush) && b->pointers.first)
      && (r = flush_store (w, layer->file)) < 0)
    return r;

  *progress = STEP_1;
  if (b->pointers.first
      && ((r = write_patches (w, &b->pointers)) < 0
          || (r = flush_store (w, layer->file)) < 0))
    return r;
  if (MUTANT (no_data_flush) && layer->geo.has_data_file)
    flush_store (w, layer->clusters);
  *progress = ALL;
  return 0;
}

static int
run_commit (struct writer *w)
{
  enum progress progress = NOTHING;
  struct batch b = { 0 };
  int r;

  b.before.last = &b.before.first;
  b.pointers.last = &b.pointers.first;

  if (MUTANT (collect_late))
    flush_store (w, w->layer->clusters);
  pthread_mutex_lock (&w->lock);
  if (MUTANT (lower_first) && freed_move (&w->durable, &w->unlinked) == 0)
    commit_reap (w);
  r = w->failed ? -EIO : collect (w, &b);
  pthread_mutex_unlock (&w->lock);

  if (r == 0)
    r = write_batch (w, &b, &progress);

  LOCK_FOR_SCOPE (&w->lock);
  release (w, &b, progress);
  if (r == 0)
    commit_reap (w);
  return r;
}

int
commit (struct writer *w)
{
  uint64_t wanted;
  int r;

  LOCK_FOR_SCOPE (&w->lock);
  wanted = w->commits_started + !(MUTANT (join_commit) && w->committing);
  while (w->commits_done < wanted) {
    if (w->committing) {
      pthread_cond_wait (&w->commit_done, &w->lock);
      continue;
    }
    w->committing = true;
    w->commits_started++;
    pthread_mutex_unlock (&w->lock);
    r = run_commit (w);
    pthread_mutex_lock (&w->lock);
    w->committing = false;
    w->commits_done = w->commits_started;
    w->commit_result = r;
    pthread_cond_broadcast (&w->commit_done);
  }
  return w->commit_result;
}

int
commit_patch_header (struct writer *w, uint64_t offset, const void *data,
                     size_t len)
{
  struct layer *layer = w->layer;
  int r;

  if (((r = store_pwrite (layer->file, data, len, offset)) < 0
       || (!MUTANT (no_header_flush) && (r = store_flush (layer->file)) < 0))
      && !MUTANT (forget_failed_header))
    /* It may be there or not: only a new look at the file tells. */
    writer_fail (w, false, "the header could not be written");
  return r;
}
