/* qcow2ext: recording changes in persistent dirty bitmaps.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A bitmap with the auto flag must record every change of the disk.  On disk
 * it is either consistent or marked in use (of no value, should the changes
 * never be stored):
 *
 *   MARK_CLEAR --first change: mark set, durable--> MARK_SET
 *   MARK_SET --nothing in flight: bits, then the table, then the mark stored,
 *   each durable before the next--> MARK_CLEAR
 *
 * While the mark is set, changes only set bits in memory, chunk by chunk.
 * Storing adds them to what is on disk, in place: as long as the mark is set
 * nobody believes it.
 *
 * Invariant: a change that is in flight and has found MARK_SET is recorded
 * before the bitmaps are stored.  For a change counts itself as in flight
 * before it looks at the mark; storing first takes MARK_SET away, and then
 * looks whether any is in flight.  Storing does not wait for requests that only
 * read: these are not among the epochs of changes.
 *
 * Bitmaps that do not record, that were in use before us or that have extra
 * data which we do not know are left as they are.
 *
 * The lock guards marking and storing, and is held while they do I/O.  It is
 * taken before the turn to commit.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "data/bitmap-tracker.h"
#include "data/writer.h"
#include "disk/bitmap-directory.h"
#include "space/allocator.h"

/* A bitmap that records. */
struct recorder {
  const struct bitmap *bitmap;
  uint64_t chunks;
  be64 *table;                  /* an entry for each chunk, as on disk */

  /* The bits of each chunk that were set since they were last stored; NULL:
   * none.  All of it is NULL when recording has ended.
   */
  _Atomic (_Atomic uint8_t *) *dirty_chunk;
  atomic_bool lost;             /* a change could not be recorded */
};

enum in_use_mark {
  MARK_CLEAR,                   /* no bitmap is marked on disk */
  MARK_SET,                     /* all of them are, durably */
  MARK_UNKNOWN,                 /* between the two, or something failed */
};

struct tracker {
  struct writer *w;
  struct layer *layer;
  size_t chunk_size;            /* bytes */
  unsigned chunk_bits;          /* log2 of bits */
  pthread_mutex_t lock;
  atomic_int mark;              /* enum in_use_mark; set under the lock */
  size_t count;
  struct recorder recorder[];
};

/* --- beginning and end --- */

static bool
records (const struct bitmap *b)
{
  return b->usable && (b->flags & QCOW2_BITMAP_AUTO);
}

static void
recorder_end (struct recorder *rec)
{
  for (uint64_t i = 0; rec->dirty_chunk && i < rec->chunks; i++)
    free ((void *) rec->dirty_chunk[i]);
  free (rec->dirty_chunk);
  free (rec->table);
  rec->dirty_chunk = NULL;
  rec->table = NULL;
}

static int
recorder_begin (struct tracker *t, struct recorder *rec,
                const struct bitmap *b)
{
  const struct header *h = &t->layer->header;
  int r;

  rec->bitmap = b;
  rec->chunks = bitmap_chunks (h, b);
  r = bitmap_read_table (t->layer->file, layer_file_size (t->layer), h, b,
                         &rec->table);
  if (r < 0)
    return r;
  rec->dirty_chunk = calloc (rec->chunks + 1, sizeof *rec->dirty_chunk);
  return rec->dirty_chunk ? 0 : -ENOMEM;
}

int
tracker_start (struct writer *w, struct tracker **result)
{
  struct layer *layer = w->layer;
  const struct bitmap_list *list = layer->bitmaps;
  struct tracker *t;
  size_t count = 0;
  int r = 0;

  *result = NULL;
  for (size_t i = 0; list && i < list->count; i++)
    count += records (&list->bitmap[i]);
  if (count == 0)
    return 0;

  t = calloc (1, sizeof *t + count * sizeof t->recorder[0]);
  if (t == NULL)
    return -ENOMEM;
  t->w = w;
  t->layer = layer;
  t->chunk_size = layer_cluster_size (layer);
  t->chunk_bits = bitmap_chunk_bits (&layer->header);
  pthread_mutex_init (&t->lock, NULL);
  for (size_t i = 0; r == 0 && i < list->count; i++)
    if (records (&list->bitmap[i]))
      r = recorder_begin (t, &t->recorder[t->count++], &list->bitmap[i]);
  if (r < 0) {
    tracker_stop (t);
    return r;
  }
  *result = t;
  return 0;
}

void
tracker_stop (struct tracker *t)
{
  if (t == NULL)
    return;
  for (size_t i = 0; i < t->count; i++)
    recorder_end (&t->recorder[i]);
  pthread_mutex_destroy (&t->lock);
  free (t);
}

/* --- the mark --- */

static int
write_flags (struct tracker *t, const struct bitmap *b, uint32_t flags)
{
  const be32 field = be32_make (flags);

  return store_pwrite (t->layer->file, &field, sizeof field, b->flags_offset);
}

/* Flushes the image file; if that fails, so does all writing. */
static int
flush_file (struct tracker *t)
{
  return health_flush (&t->w->health, t->layer->file, FLUSH_BITMAPS);
}

/* Marks the bitmaps as in use, durably. */
static int
mark_in_use (struct tracker *t)
{
  int r;

  LOCK_FOR_SCOPE (&t->lock);
  if (t->mark == MARK_SET)
    return 0;
  t->mark = MARK_UNKNOWN;
  for (size_t i = 0; i < t->count; i++) {
    const struct recorder *rec = &t->recorder[i];

    if (rec->dirty_chunk
        && (r = write_flags (t, rec->bitmap,
                             rec->bitmap->flags | QCOW2_BITMAP_IN_USE)) < 0)
      return r;
  }
  if ((r = flush_file (t)) < 0)
    return r;
  t->mark = MARK_SET;
  return 0;
}

/* --- recording --- */

/* The dirty bits of a chunk, made when they are first needed. */
static _Atomic uint8_t *
get_chunk (const struct tracker *t, struct recorder *rec, uint64_t index)
{
  _Atomic uint8_t *chunk = atomic_load (&rec->dirty_chunk[index]);
  _Atomic uint8_t *expected = NULL;

  if (chunk)
    return chunk;
  chunk = calloc (1, t->chunk_size);
  if (chunk == NULL) {
    rec->lost = true;
    return NULL;
  }
  if (atomic_compare_exchange_strong (&rec->dirty_chunk[index], &expected,
                                      chunk))
    return chunk;
  free ((void *) chunk);
  return expected;
}

/* Sets the bits first to last. */
static void
record_bits (const struct tracker *t, struct recorder *rec, uint64_t first,
             uint64_t last)
{
  const uint64_t mask = (UINT64_C (1) << t->chunk_bits) - 1;

  for (uint64_t bit = first; bit <= last;) {
    _Atomic uint8_t *chunk = get_chunk (t, rec, bit >> t->chunk_bits);
    uint64_t end = (bit | mask) + 1; /* of the chunk */

    if (end > last + 1)
      end = last + 1;
    for (; bit < end && chunk; bit = (bit | 7) + 1) {
      const unsigned low = bit & 7;
      const unsigned high = end - (bit - low) < 8 ? end - (bit - low) : 8;
      const uint8_t bits = (1U << high) - (1U << low);
      _Atomic uint8_t *byte = &chunk[(bit & mask) / 8];

      if ((atomic_load_explicit (byte, memory_order_relaxed) & bits) != bits)
        atomic_fetch_or_explicit (byte, bits, memory_order_relaxed);
    }
    bit = end;
  }
}

static void
record (struct tracker *t, uint64_t count, uint64_t offset)
{
  for (size_t i = 0; i < t->count; i++) {
    struct recorder *rec = &t->recorder[i];
    const unsigned granularity = rec->bitmap->granularity_bits;

    if (rec->dirty_chunk)
      record_bits (t, rec, offset >> granularity,
                   (offset + count - 1) >> granularity);
  }
}

int
tracker_record_change (struct tracker *t, struct epochs *changes,
                       uint64_t count, uint64_t offset,
                       struct epoch_ticket *ticket)
{
  int r;

  for (;;) {
    *ticket = epochs_enter (changes);
    if (t->mark == MARK_SET) {
      record (t, count, offset);
      return 0;
    }
    epochs_leave (changes, *ticket);
    if ((r = mark_in_use (t)) < 0)
      return r;
  }
}

/* --- storing --- */

/* Adds the dirty bits of a chunk to what is on disk.  A new cluster is not yet
 * referred to.
 */
static int
store_chunk (struct tracker *t, struct recorder *rec, uint64_t index)
{
  struct store *file = t->layer->file;
  const _Atomic uint8_t *dirty = rec->dirty_chunk[index];
  const uint64_t entry = be64_get (rec->table[index]);
  uint64_t host = entry & QCOW2_BITMAP_OFFSET;
  CLEANUP_FREE uint8_t *bits = NULL;
  int r;

  if (host == 0 && (entry & QCOW2_BITMAP_ALL_ONES))
    return 0;
  bits = calloc (1, t->chunk_size);
  if (bits == NULL)
    return -ENOMEM;
  if (host && (r = store_pread (file, bits, t->chunk_size, host)) < 0)
    return r;
  for (size_t i = 0; i < t->chunk_size; i++)
    bits[i] |= dirty[i];
  r = host ? store_pwrite (file, bits, t->chunk_size, host)
           : allocator_alloc_table (&t->w->counts, bits, &host);
  if (r == 0)
    rec->table[index] = be64_make (host);
  return r;
}

/* Calls fn for each chunk that has dirty bits, until one fails. */
static int
for_dirty_chunks (struct tracker *t,
                  int (*fn) (struct tracker *t, struct recorder *rec,
                             uint64_t index))
{
  int r = 0;

  for (size_t i = 0; i < t->count; i++) {
    struct recorder *rec = &t->recorder[i];

    for (uint64_t j = 0; r == 0 && rec->dirty_chunk && j < rec->chunks; j++)
      if (rec->dirty_chunk[j])
        r = fn (t, rec, j);
  }
  return r;
}

static int
store_entry (struct tracker *t, struct recorder *rec, uint64_t index)
{
  return store_pwrite (t->layer->file, &rec->table[index],
                       sizeof rec->table[index],
                       rec->bitmap->table_offset
                       + index * sizeof rec->table[index]);
}

static int
drop_chunk (struct tracker *t, struct recorder *rec, uint64_t index)
{
  (void) t;
  free ((void *) rec->dirty_chunk[index]);
  rec->dirty_chunk[index] = NULL;
  return 0;
}

static int
store_all (struct tracker *t)
{
  int r;

  if ((r = for_dirty_chunks (t, store_chunk)) < 0)
    return r;
  /* The bits, and the counts of their clusters, before what refers to them. */
  if ((r = commit_run (&t->w->commit)) < 0 || (r = flush_file (t)) < 0)
    return r;
  if ((r = for_dirty_chunks (t, store_entry)) < 0)
    return r;
  if ((r = flush_file (t)) < 0)
    return r;

  for (size_t i = 0; i < t->count; i++) {
    const struct recorder *rec = &t->recorder[i];

    if (rec->dirty_chunk && !rec->lost
        && (r = write_flags (t, rec->bitmap, rec->bitmap->flags)) < 0)
      return r;
  }
  return flush_file (t);
}

/* Only the bitmaps are at stake: what the guest has written was made durable
 * before.
 */
static void
report_not_stored (struct tracker *t, int error)
{
  if (!health_ok (&t->w->health))
    return;                     /* that was reported */
  for (size_t i = 0; i < t->count; i++) {
    const struct recorder *rec = &t->recorder[i];

    if (rec->dirty_chunk)
      report_limited (&t->layer->limit,
                      "%s: bitmap \"%s\" cannot be stored: %s; the data that "
                      "was written is on disk, but the bitmap stays marked as "
                      "in use until it can be stored",
                      t->layer->file->name, rec->bitmap->name,
                      strerror (-error));
  }
}

/* Is a change perhaps still under way that has found the mark set? */
static bool
is_busy (struct tracker *t)
{
  struct writer *w = t->w;
  unsigned epoch;

  deferred_free_reap (&w->frees);
  return !(epochs_advance (&w->changes, &epoch)
           ? epochs_drained (&w->changes, epoch) : epochs_idle (&w->changes));
}

int
tracker_store (struct tracker *t)
{
  int before, r;

  if (t == NULL)
    return 0;
  LOCK_FOR_SCOPE (&t->lock);
  if (t->mark == MARK_CLEAR)
    return 0;

  /* From here on a change does not find it set and waits for the lock. */
  before = t->mark;
  t->mark = MARK_UNKNOWN;
  if (is_busy (t)) {
    t->mark = before;
    return -EBUSY;
  }

  /* If this fails, some may be marked and some not. */
  r = store_all (t);
  if (r < 0) {
    report_not_stored (t, r);
    return r;
  }
  t->mark = MARK_CLEAR;
  for_dirty_chunks (t, drop_chunk);
  for (size_t i = 0; i < t->count; i++) {
    struct recorder *rec = &t->recorder[i];

    if (rec->dirty_chunk && rec->lost) {
      report_warning ("%s: bitmap \"%s\" has missed changes for want of "
                      "memory and stays marked as inconsistent",
                      t->layer->file->name, rec->bitmap->name);
      recorder_end (rec);
    }
  }
  return 0;
}
