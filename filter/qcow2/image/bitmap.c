/* qcow2ext: persistent dirty bitmaps.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A bitmap with the auto flag must record every change of the disk.  On disk
 * it is either closed (consistent) or marked in use (of no value, should we
 * not get to store it):
 *
 *   closed --first change: flag set, durable--> open
 *   open --nothing under way: bits stored, durable; flag cleared--> closed
 *
 * While open, changes only set bits in memory, in pieces as large as a
 * cluster of the bitmap.  Storing adds them to what is on disk, in place: as
 * long as the flag is set nobody believes it.
 *
 * A change counts itself as in flight before it looks whether the bitmaps are
 * open; closing first says that they are not, and then looks whether anything
 * is in flight.  So no change can slip through between the two.
 *
 * Bitmaps that do not record, that were in use before us or that have extra
 * data which we do not know are left as they are.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"
#include "base/cleanup.h"
#include "base/mutant.h"
#include "image/writer.h"

static uint64_t
nr_bits (const struct layer *layer, const struct bitmap *b)
{
  const uint64_t granule = UINT64_C (1) << b->granularity_bits;

  return (layer->header.size >> b->granularity_bits)
    + !!(layer->header.size & (granule - 1));
}

/* log2 of the bits in a cluster of a bitmap. */
static unsigned
piece_bits (const struct layer *layer)
{
  return layer->geo.cluster_bits + 3;
}

static uint64_t
nr_pieces (const struct layer *layer, const struct bitmap *b)
{
  const uint64_t piece = UINT64_C (1) << piece_bits (layer);

  return (nr_bits (layer, b) + piece - 1) >> piece_bits (layer);
}

/* --- the directory --- */

/* Parses one entry at pos of the directory.  Returns its length, or 0 if it
 * is not sound.  Without memory, the name is NULL.
 */
static size_t
parse_entry (const struct layer *layer, const uint8_t *dir, size_t pos,
             size_t size, struct bitmap *b)
{
  struct qcow2_bitmap disk;
  uint64_t length, table_end;
  uint32_t extra;
  unsigned name_size;
  const char *name;

  if (size - pos < sizeof disk)
    return 0;
  memcpy (&disk, dir + pos, sizeof disk);
  extra = be32_get (disk.extra_data_size);
  name_size = be16_get (disk.name_size);
  length = (sizeof disk + (uint64_t) extra + name_size + 7) & ~UINT64_C (7);
  if (length > size - pos)
    return 0;

  b->flags = be32_get (disk.flags);
  b->granularity_bits = disk.granularity_bits;
  b->flags_offset = layer->header.bitmap_directory_offset + pos
    + offsetof (struct qcow2_bitmap, flags);
  b->table_offset = be64_get (disk.table_offset);
  b->table_entries = be32_get (disk.table_size);
  name = (const char *) dir + pos + sizeof disk + extra;
  if (name_size == 0 || name_size > QCOW2_MAX_NAME
      || memchr (name, 0, name_size)
      || disk.type != QCOW2_BITMAP_TYPE_DIRTY
      || b->flags & ~QCOW2_BITMAP_FLAGS
      || b->granularity_bits < QCOW2_MIN_GRANULARITY_BITS
      || b->granularity_bits > QCOW2_MAX_GRANULARITY_BITS
      || b->table_offset & (layer_cluster_size (layer) - 1)
      || __builtin_add_overflow (b->table_offset,
                                 b->table_entries * sizeof (be64), &table_end)
      || table_end > layer_file_size (layer))
    return 0;
  b->usable = !(b->flags & QCOW2_BITMAP_IN_USE)
    && (extra == 0 || b->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE);
  if (b->usable && b->table_entries < nr_pieces (layer, b))
    return 0;
  b->name = strndup (name, name_size);
  return length;
}

int
bitmap_list_read (struct layer *layer)
{
  const struct header *h = &layer->header;
  const uint64_t size = h->bitmap_directory_size;
  CLEANUP_FREE uint8_t *dir = NULL;
  struct bitmap_list *list;
  size_t pos = 0;
  int r;

  if (!h->has_bitmaps || !(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
    return 0;

  /* Each entry takes some space in the directory, and that in the file. */
  list = calloc (1, sizeof *list);
  if (list == NULL)
    return -ENOMEM;
  layer->bitmaps = list;
  list->damaged = true;
  if (h->bitmap_directory_offset > layer_file_size (layer)
      || size > layer_file_size (layer) - h->bitmap_directory_offset
      || h->nb_bitmaps > size / sizeof (struct qcow2_bitmap))
    goto damaged;
  list = realloc (list, sizeof *list + h->nb_bitmaps * sizeof (struct bitmap));
  if (list == NULL)
    return -ENOMEM;
  layer->bitmaps = list;
  dir = malloc (size);
  if (dir == NULL)
    return -ENOMEM;
  r = store_pread (layer->file, dir, size, h->bitmap_directory_offset);
  if (r < 0) {
    report_error ("%s: the bitmap directory cannot be read: %s",
                  layer->file->name, strerror (-r));
    return r;
  }

  while (list->count < h->nb_bitmaps) {
    struct bitmap *b = &list->bitmap[list->count];
    size_t n;

    memset (b, 0, sizeof *b);
    n = parse_entry (layer, dir, pos, size, b);
    if (n == 0)
      goto damaged;
    list->count++;
    if (b->name == NULL)
      return -ENOMEM;
    pos += n;
  }
  if (pos != size)
    goto damaged;
  list->damaged = false;
  return 0;

 damaged:
  report_warning ("%s: the bitmap directory is damaged", layer->file->name);
  return 0;
}

static void
stop_recording (struct layer *layer, struct bitmap *b)
{
  if (b->fresh)
    for (uint64_t i = 0; i < nr_pieces (layer, b); i++)
      free ((void *) b->fresh[i]);
  free (b->fresh);
  free (b->table);
  b->fresh = NULL;
  b->table = NULL;
}

void
bitmap_list_free (struct layer *layer)
{
  struct bitmap_list *list = layer->bitmaps;

  for (size_t i = 0; list && i < list->count; i++) {
    stop_recording (layer, &list->bitmap[i]);
    free (list->bitmap[i].name);
  }
  free (list);
  layer->bitmaps = NULL;
}

/* Reads the table of a bitmap.  The caller frees it. */
static int
read_bitmap_table (struct layer *layer, const struct bitmap *b,
                   uint64_t entries, be64 **table)
{
  int r;

  *table = malloc (entries * sizeof (be64) + 1);
  if (*table == NULL)
    return -ENOMEM;
  r = store_pread (layer->file, *table, entries * sizeof (be64),
                   b->table_offset);
  for (uint64_t i = 0; r == 0 && i < entries; i++) {
    const uint64_t entry = be64_get ((*table)[i]);
    const uint64_t host = entry & QCOW2_BITMAP_OFFSET;

    if (entry & QCOW2_BITMAP_RESERVED
        || (host && entry & QCOW2_BITMAP_ALL_ONES)
        || host & (layer_cluster_size (layer) - 1)
        || (host && host >= layer_file_size (layer)))
      r = -EINVAL;
  }
  if (r < 0) {
    report_error ("%s: bitmap \"%s\": the table %s", layer->file->name,
                  b->name, r == -EINVAL ? "is damaged" : "cannot be read");
    free (*table);
    *table = NULL;
  }
  return r;
}

int
bitmap_walk_ranges (struct layer *layer, bitmap_range_fn fn, void *opaque)
{
  const struct bitmap_list *list = layer->bitmaps;
  const struct header *h = &layer->header;
  int r;

  if (list == NULL)
    return 0;
  r = fn (opaque, "bitmap directory", h->bitmap_directory_offset,
          h->bitmap_directory_size);
  for (size_t i = 0; r == 0 && i < list->count; i++) {
    const struct bitmap *b = &list->bitmap[i];
    CLEANUP_FREE be64 *table = NULL;

    r = fn (opaque, "bitmap table", b->table_offset,
            b->table_entries * sizeof (be64));
    if (r == 0)
      r = read_bitmap_table (layer, b, b->table_entries, &table);
    for (uint32_t j = 0; r == 0 && j < b->table_entries; j++) {
      const uint64_t host = be64_get (table[j]) & QCOW2_BITMAP_OFFSET;

      if (host)
        r = fn (opaque, "bitmap", host, layer_cluster_size (layer));
    }
  }
  return r;
}

/* --- showing a bitmap --- */

int
bitmap_show (struct image *image, const char *name)
{
  struct layer *layer = image->top;
  const struct bitmap_list *list = layer->bitmaps;
  char names[1024] = "";
  size_t len = 0;

  for (size_t i = 0; list && !list->damaged && i < list->count; i++) {
    const struct bitmap *b = &list->bitmap[i];

    if (strcmp (b->name, name) == 0) {
      if (!b->usable) {
        report_error ("%s: bitmap \"%s\" is inconsistent: it was in use when "
                      "somebody stopped, and does not tell what has changed",
                      layer->file->name, name);
        return -EINVAL;
      }
      image->exported_bitmap = b;
      return read_bitmap_table (layer, b, nr_pieces (layer, b),
                                &image->exported_table);
    }
    if (len < sizeof names)
      len += snprintf (names + len, sizeof names - len, "%s%s",
                       i ? ", " : "", b->name);
  }
  report_error ("%s: there is no bitmap \"%s\"; %s%s", layer->file->name,
                name, len ? "the bitmaps are: " : "the image has no bitmaps",
                names);
  return -ENOENT;
}

static int
show_bits (const struct bitmap *b, const uint8_t *bits, uint64_t first,
           uint64_t n, uint64_t offset, uint64_t end, extent_fn fn,
           void *opaque)
{
  const unsigned shift = b->granularity_bits;
  const uint64_t granule = UINT64_C (1) << shift;

  for (uint64_t i = 0; i < n && offset < end; i++) {
    const uint64_t bit = first + i;
    uint64_t next = (offset & -granule) + granule;
    int r;

    if (next > end)
      next = end;
    r = fn (opaque, offset, next - offset,
            bits[bit / 8] >> (bit % 8) & 1 ? EXTENT_DATA
                                           : EXTENT_HOLE | EXTENT_ZERO);
    if (r != 0)
      return r;
    offset = next;
  }
  return 0;
}

int
bitmap_extents (struct image *image, uint64_t count, uint64_t offset,
                extent_fn fn, void *opaque)
{
  struct layer *layer = image->top;
  const struct bitmap *b = image->exported_bitmap;
  const uint64_t end = offset + count;
  const uint64_t piece = UINT64_C (1) << piece_bits (layer);
  CLEANUP_FREE uint8_t *bits = NULL;
  int r = 0;

  while (r == 0 && offset < end) {
    const uint64_t bit = offset >> b->granularity_bits;
    const uint64_t index = bit >> piece_bits (layer);
    const uint64_t entry = be64_get (image->exported_table[index]);
    const uint64_t host = entry & QCOW2_BITMAP_OFFSET;
    uint64_t next = (index + 1) << (piece_bits (layer) + b->granularity_bits);

    if (next > end
        || next >> (piece_bits (layer) + b->granularity_bits) != index + 1)
      next = end;
    if (host == 0)
      r = fn (opaque, offset, next - offset,
              entry & QCOW2_BITMAP_ALL_ONES ? EXTENT_DATA
                                            : EXTENT_HOLE | EXTENT_ZERO);
    else {
      if (bits == NULL
          && (bits = malloc (layer_cluster_size (layer))) == NULL)
        return -ENOMEM;
      r = store_pread (layer->file, bits, layer_cluster_size (layer), host);
      if (r == 0)
        r = show_bits (b, bits, bit & (piece - 1), piece, offset, next,
                       fn, opaque);
    }
    offset = next;
  }
  return r;
}

/* --- recording --- */

static bool
records (const struct bitmap *b)
{
  return b->usable && (b->flags & QCOW2_BITMAP_AUTO);
}

int
bitmap_start (struct writer *w)
{
  struct layer *layer = w->layer;
  struct bitmap_list *list = layer->bitmaps;
  int r;

  for (size_t i = 0; list && i < list->count; i++) {
    struct bitmap *b = &list->bitmap[i];

    if (!records (b))
      continue;
    r = read_bitmap_table (layer, b, nr_pieces (layer, b), &b->table);
    if (r < 0)
      return r;
    b->fresh = calloc (nr_pieces (layer, b) + 1, sizeof *b->fresh);
    if (b->fresh == NULL)
      return -ENOMEM;
    w->tracking = true;
  }
  return 0;
}

void
bitmap_stop (struct writer *w)
{
  struct bitmap_list *list = w->layer->bitmaps;

  for (size_t i = 0; list && i < list->count; i++)
    stop_recording (w->layer, &list->bitmap[i]);
  w->tracking = false;
}

static int
set_flags (struct writer *w, const struct bitmap *b, uint32_t flags)
{
  const be32 field = be32_make (flags);

  return store_pwrite (w->layer->file, &field, sizeof field,
                       b->flags_offset);
}

/* Flushes the image file; if that fails, so does all writing. */
static int
flush_file (struct writer *w)
{
  const int r = store_flush (w->layer->file);

  if (r < 0 && !MUTANT (forget_failed_bitmap)) {
    LOCK_FOR_SCOPE (&w->lock);
    writer_fail (w, false, "flushing the image file failed");
  }
  return r;
}

int
bitmap_open (struct writer *w)
{
  struct bitmap_list *list = w->layer->bitmaps;
  int r;

  LOCK_FOR_SCOPE (&w->bitmap_lock);
  if (w->bitmaps_open == BITMAPS_OPEN)
    return 0;
  w->bitmaps_open = BITMAPS_UNCLEAR;
  for (size_t i = 0; i < list->count; i++) {
    struct bitmap *b = &list->bitmap[i];

    if (b->fresh
        && (r = set_flags (w, b, b->flags | QCOW2_BITMAP_IN_USE)) < 0)
      return r;
  }
  if (!MUTANT (bitmap_open_late) && (r = flush_file (w)) < 0)
    return r;
  w->bitmaps_open = BITMAPS_OPEN;
  return 0;
}

/* The piece of a bitmap, made when it is first needed. */
static _Atomic uint8_t *
get_piece (const struct layer *layer, struct bitmap *b, uint64_t index)
{
  _Atomic uint8_t *piece = atomic_load (&b->fresh[index]), *expected = NULL;

  if (piece)
    return piece;
  piece = calloc (1, layer_cluster_size (layer));
  if (piece == NULL) {
    b->lost = true;
    return NULL;
  }
  if (atomic_compare_exchange_strong (&b->fresh[index], &expected, piece))
    return piece;
  free ((void *) piece);
  return expected;
}

static void
record (const struct layer *layer, struct bitmap *b, uint64_t first,
        uint64_t last)
{
  const uint64_t mask = (UINT64_C (1) << piece_bits (layer)) - 1;

  for (uint64_t bit = first; bit <= last;) {
    _Atomic uint8_t *piece = get_piece (layer, b, bit >> piece_bits (layer));
    uint64_t end = (bit | mask) + 1; /* of the piece */

    if (end > last + 1)
      end = last + 1;
    for (; bit < end && piece; bit = (bit | 7) + 1) {
      const unsigned low = bit & 7;
      const unsigned high = end - (bit - low) < 8 ? end - (bit - low) : 8;
      const uint8_t bits = (1U << high) - (1U << low);
      _Atomic uint8_t *byte = &piece[(bit & mask) / 8];

      if ((atomic_load_explicit (byte, memory_order_relaxed) & bits) != bits)
        atomic_fetch_or_explicit (byte, bits, memory_order_relaxed);
    }
    bit = end;
  }
}

void
bitmap_record (struct layer *layer, uint64_t count, uint64_t offset)
{
  struct bitmap_list *list = layer->bitmaps;

  for (size_t i = 0; i < list->count; i++) {
    struct bitmap *b = &list->bitmap[i];

    if (b->fresh)
      record (layer, b, offset >> b->granularity_bits,
              (offset + count - 1) >> b->granularity_bits);
  }
}

/* Adds one piece to what is on disk.  A new cluster is not yet referred to. */
static int
store_piece (struct writer *w, struct bitmap *b, uint64_t index)
{
  struct layer *layer = w->layer;
  const size_t size = layer_cluster_size (layer);
  const _Atomic uint8_t *piece = b->fresh[index];
  const uint64_t entry = be64_get (b->table[index]);
  uint64_t host = entry & QCOW2_BITMAP_OFFSET, got;
  CLEANUP_FREE uint8_t *bits = NULL;
  bool zero, fresh = false;
  int r;

  if (host == 0 && (entry & QCOW2_BITMAP_ALL_ONES))
    return 0;
  bits = calloc (1, size);
  if (bits == NULL)
    return -ENOMEM;
  if (host && (r = store_pread (layer->file, bits, size, host)) < 0)
    return r;
  for (size_t i = 0; i < size; i++)
    bits[i] |= piece[i];
  if (host == 0) {
    LOCK_FOR_SCOPE (&w->lock);
    r = w->failed ? -EIO : refcount_alloc (w, 1, &host, &got, &zero);
    if (r < 0)
      return r;
    r = metadata_add (w, host >> layer->geo.cluster_bits);
    if (r < 0) {
      refcount_unalloc (w, host, 1);
      return r;
    }
    fresh = true;
  }
  r = store_pwrite (layer->file, bits, size, host);
  if (r == 0)
    b->table[index] = be64_make (host);
  else if (fresh) {
    LOCK_FOR_SCOPE (&w->lock);
    metadata_remove (w, host >> layer->geo.cluster_bits);
    if (!w->failed)
      refcount_unalloc (w, host, 1);
  }
  return r;
}

/* Stores what a bitmap has recorded, without its table. */
static int
store_bits (struct writer *w, struct bitmap *b)
{
  int r = 0;

  for (uint64_t i = 0; r == 0 && i < nr_pieces (w->layer, b); i++)
    if (b->fresh[i])
      r = store_piece (w, b, i);
  return r;
}

/* Stores the table entries of what was recorded. */
static int
store_table (struct writer *w, struct bitmap *b)
{
  int r = 0;

  for (uint64_t i = 0; r == 0 && i < nr_pieces (w->layer, b); i++)
    if (b->fresh[i])
      r = store_pwrite (w->layer->file, &b->table[i], sizeof b->table[i],
                        b->table_offset + i * sizeof b->table[i]);
  return r;
}

static int
store_all (struct writer *w, struct bitmap_list *list)
{
  int r;

  for (size_t i = 0; i < list->count; i++)
    if (list->bitmap[i].fresh
        && (r = store_bits (w, &list->bitmap[i])) < 0)
      return r;
  /* The bits, and the counts of their clusters, before what refers to them. */
  if (!MUTANT (bitmap_table_early)
      && ((r = commit (w)) < 0 || (r = flush_file (w)) < 0))
    return r;
  for (size_t i = 0; i < list->count; i++)
    if (list->bitmap[i].fresh
        && (r = store_table (w, &list->bitmap[i])) < 0)
      return r;
  if (!MUTANT (bitmap_close_early) && (r = flush_file (w)) < 0)
    return r;

  for (size_t i = 0; i < list->count; i++) {
    struct bitmap *b = &list->bitmap[i];

    if (b->fresh && !b->lost && (r = set_flags (w, b, b->flags)) < 0)
      return r;
  }
  return flush_file (w);
}

int
bitmap_close (struct writer *w)
{
  struct bitmap_list *list = w->layer->bitmaps;
  unsigned set;
  int before, r;

  if (!w->tracking)
    return 0;
  LOCK_FOR_SCOPE (&w->bitmap_lock);
  if (w->bitmaps_open == BITMAPS_CLOSED)
    return 0;

  /* From here on a change does not find them open and waits for the lock. */
  before = w->bitmaps_open;
  w->bitmaps_open = BITMAPS_UNCLEAR;
  {
    /* There is one grace period at a time; take the writer's if it has one. */
    LOCK_FOR_SCOPE (&w->lock);
    commit_reap (w);
    if (w->grace.count || !inflight_flip (&w->inflight, &set))
      set = 2;                  /* no grace period: look at both sets */
  }
  if (MUTANT (bitmap_no_grace))
    ;
  else if (set == 2 ? !inflight_is_empty (&w->inflight, 0)
                      || !inflight_is_empty (&w->inflight, 1)
                    : !inflight_is_empty (&w->inflight, set)) {
    w->bitmaps_open = before;
    return -EBUSY;
  }

  /* If this fails, some may be closed and some not. */
  r = store_all (w, list);
  if (r < 0)
    return r;
  w->bitmaps_open = BITMAPS_CLOSED;
  for (size_t i = 0; i < list->count; i++) {
    struct bitmap *b = &list->bitmap[i];

    for (uint64_t j = 0; b->fresh && j < nr_pieces (w->layer, b); j++) {
      free ((void *) b->fresh[j]);
      b->fresh[j] = NULL;
    }
    if (b->lost) {
      report_warning ("%s: bitmap \"%s\" has missed changes for want of "
                      "memory and stays marked as inconsistent",
                      w->layer->file->name, b->name);
      stop_recording (w->layer, b);
    }
  }
  return 0;
}
