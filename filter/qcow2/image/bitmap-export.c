/* qcow2ext: a dirty bitmap, shown as extents.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "disk/bitmap-directory.h"
#include "image/bitmap-export.h"

#define CLEAN (EXTENT_HOLE | EXTENT_ZERO)
#define DIRTY EXTENT_DATA

static void
report_missing (const struct store *file, const struct bitmap_list *list,
                const char *name)
{
  char names[1024] = "";
  size_t len = 0;

  for (size_t i = 0; list && !list->damaged && i < list->count; i++)
    if (len < sizeof names)
      len += snprintf (names + len, sizeof names - len, "%s%s",
                       i ? ", " : "", list->bitmap[i].name);
  report_error ("%s: there is no bitmap \"%s\"; %s%s", file->name, name,
                len ? "the bitmaps are: " : "the image has no bitmaps",
                names);
}

static void
report_inconsistent (const struct layer *layer, const struct bitmap *b)
{
  report_error ("%s: bitmap \"%s\" is inconsistent: it was in use when somebody "
                "stopped, and does not tell what has changed",
                layer->file->name, b->name);
}

static const struct bitmap *
find_bitmap (const struct layer *layer, const char *name)
{
  const struct bitmap_list *list = layer->bitmaps;

  for (size_t i = 0; list && !list->damaged && i < list->count; i++)
    if (strcmp (list->bitmap[i].name, name) == 0)
      return &list->bitmap[i];
  return NULL;
}

static int
export_one (struct image *image, const struct layer *layer,
            const struct bitmap *b, bool any)
{
  struct exported_bitmap *e;

  if (!b->usable && !any) {
    report_inconsistent (layer, b);
    return -EINVAL;
  }
  e = calloc (1, sizeof *e);
  if (e == NULL)
    return -ENOMEM;
  e->layer = layer;
  e->bitmap = b;
  e->next = image->exported;
  image->exported = e;
  return b->usable
    ? bitmap_read_table (layer->file, layer_file_size (layer),
                         &layer->header, b, &e->table)
    : 0;
}

int
bitmap_export (struct image *image, const char *name, bool any)
{
  const struct bitmap *b = find_bitmap (image->top, name);

  if (b == NULL) {
    report_missing (image->top->file, image->top->bitmaps, name);
    return -ENOENT;
  }
  return export_one (image, image->top, b, any);
}

/* A layer without the bitmap, above one that has it, has changes that nobody
 * recorded.
 */
int
bitmap_export_chain (struct image *image, const char *name)
{
  const struct layer *without = NULL;
  int r = bitmap_export (image, name, false);

  for (const struct layer *l = image->top->backing; r == 0 && l;
       l = l->backing) {
    const struct bitmap *b = find_bitmap (l, name);

    if (l->header.has_bitmaps && (l->bitmaps == NULL || l->bitmaps->damaged)) {
      report_error ("%s: the bitmaps of this layer are not valid, so what has "
                    "changed in it is not known", l->file->name);
      return -EINVAL;
    }
    if (b && without) {
      report_error ("%s: this layer has no bitmap \"%s\", but one below it "
                    "has, so what has changed in between is not known",
                    without->file->name, name);
      return -EINVAL;
    }
    if (b)
      r = export_one (image, l, b, false);
    else
      without = l;
  }
  return r;
}

void
bitmap_export_free (struct image *image)
{
  while (image->exported) {
    struct exported_bitmap *e = image->exported;

    image->exported = e->next;
    free (e->table);
    free (e);
  }
}

/* How many bits from bit first on, below end, are the same as that one?  Looks
 * at 64 of them at once.
 */
static uint64_t
same_bits (const uint64_t *bits, uint64_t first, uint64_t end)
{
  const uint64_t all = le64toh (bits[first / 64]) >> (first % 64) & 1
    ? UINT64_MAX : 0;

  for (uint64_t i = first; i < end; i = (i / 64 + 1) * 64) {
    const uint64_t differs = (le64toh (bits[i / 64]) ^ all) >> (i % 64);

    if (differs)
      return min64 (i + __builtin_ctzll (differs), end) - first;
  }
  return end - first;
}

/* A bitmap while it is read. */
struct source {
  const struct layer *layer;
  const struct bitmap *bitmap;
  const be64 *table;
  uint64_t *bits;               /* of one chunk; NULL: of none */
  uint64_t chunk;               /* which */
};

/* Reads the bits of a chunk that lies in the file at host, if they are not at
 * hand.
 */
static int
read_chunk (struct source *s, uint64_t chunk, uint64_t host)
{
  const uint64_t size = layer_cluster_size (s->layer);
  int r;

  if (s->bits && s->chunk == chunk)
    return 0;
  if (s->bits == NULL && (s->bits = malloc (size)) == NULL)
    return -ENOMEM;
  r = store_pread (s->layer->file, s->bits, size, host);
  s->chunk = r == 0 ? chunk : UINT64_MAX;
  return r;
}

/* Is the byte at offset dirty, and up to where (at most end) is the rest like
 * it, or may be?  Returns 1, 0 or -errno.
 */
static int
look_at (struct source *s, uint64_t offset, uint64_t end, uint64_t *next)
{
  const struct layer *layer = s->layer;
  const unsigned granularity = s->bitmap->granularity_bits;
  const unsigned chunk_bits = bitmap_chunk_bits (&layer->header);
  const uint64_t bit = offset >> granularity;
  const uint64_t chunk = bit >> chunk_bits;
  const uint64_t first = bit & ((UINT64_C (1) << chunk_bits) - 1);
  const uint64_t bits_left = (UINT64_C (1) << chunk_bits) - first;
  uint64_t entry, host, n;
  int r;

  if (offset >= layer->size) {  /* a layer that is shorter than the disk */
    *next = end;
    return 0;
  }
  end = min64 (end, layer->size);
  n = min64 (bits_left, ((end - 1) >> granularity) - bit + 1);
  entry = be64_get (s->table[chunk]);
  host = entry & QCOW2_BITMAP_OFFSET;
  if (host) {
    if ((r = read_chunk (s, chunk, host)) < 0)
      return r;
    n = same_bits (s->bits, first, first + n);
  }
  *next = min64 ((bit + n) << granularity, end);
  return host ? le64toh (s->bits[first / 64]) >> (first % 64) & 1
              : !!(entry & QCOW2_BITMAP_ALL_ONES);
}

/* Shows what is dirty in any of the sources. */
static int
show (struct source *sources, size_t nr, uint64_t count, uint64_t offset,
      extent_fn fn, void *opaque)
{
  const uint64_t end = offset + count;
  int r = 0;

  while (r == 0 && offset < end) {
    uint64_t dirty_end = offset, clean_end = end, next;

    for (size_t i = 0; i < nr; i++) {
      r = look_at (&sources[i], offset, end, &next);
      if (r < 0)
        return r;
      if (r)
        dirty_end = next > dirty_end ? next : dirty_end;
      else
        clean_end = min64 (clean_end, next);
    }
    next = dirty_end > offset ? dirty_end : clean_end;
    r = fn (opaque, offset, next - offset,
            dirty_end > offset ? DIRTY : CLEAN);
    offset = next;
  }
  return r;
}

int
bitmap_extents (struct image *image, uint64_t count, uint64_t offset,
                extent_fn fn, void *opaque)
{
  CLEANUP_FREE struct source *sources = NULL;
  size_t nr = 0;
  int r = 0;

  for (const struct exported_bitmap *e = image->exported; e; e = e->next)
    nr++;
  if ((sources = calloc (nr, sizeof *sources)) == NULL)
    return -ENOMEM;
  nr = 0;
  for (const struct exported_bitmap *e = image->exported; e; e = e->next) {
    if (e->table == NULL) {
      if (report_allowed (&image->top->limit))
        report_inconsistent (e->layer, e->bitmap);
      return -EIO;
    }
    sources[nr++] = (struct source) {
      .layer = e->layer, .bitmap = e->bitmap, .table = e->table
    };
  }
  r = show (sources, nr, count, offset, fn, opaque);
  for (size_t i = 0; i < nr; i++)
    free (sources[i].bits);
  return r;
}

static int
add_dirty (void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
  (void) offset;
  if (type == DIRTY)
    *(uint64_t *) opaque += length;
  return 0;
}

int
bitmap_changed (const struct image *image, size_t index, uint64_t *bytes)
{
  const struct layer *layer = image->top;
  const struct bitmap *b = &layer->bitmaps->bitmap[index];
  CLEANUP_FREE be64 *table = NULL;
  struct source s;
  int r;

  *bytes = 0;
  r = bitmap_read_table (layer->file, layer_file_size (layer),
                         &layer->header, b, &table);
  if (r < 0)
    return r;
  s = (struct source) { .layer = layer, .bitmap = b, .table = table };
  r = show (&s, 1, layer->size, 0, add_dirty, bytes);
  free (s.bits);
  if (r < 0)
    bitmap_report_table (layer->file, b, r);
  return r;
}
