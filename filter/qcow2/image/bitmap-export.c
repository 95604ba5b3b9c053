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
  report_missing (layer->file, list, name);
  return NULL;
}

int
bitmap_export (struct image *image, const char *name, bool any)
{
  const struct layer *layer = image->top;
  const struct bitmap *b = find_bitmap (layer, name);
  struct exported_bitmap *e;

  if (b == NULL)
    return -ENOENT;
  if (!b->usable && !any) {
    report_inconsistent (layer, b);
    return -EINVAL;
  }
  e = calloc (1, sizeof *e);
  if (e == NULL)
    return -ENOMEM;
  e->bitmap = b;
  e->next = image->exported;
  image->exported = e;
  return b->usable
    ? bitmap_read_table (layer->file, layer_file_size (layer),
                         &layer->header, b, &e->table)
    : 0;
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
  const struct bitmap *bitmap;
  const be64 *table;
  uint64_t *bits;               /* of one chunk; NULL: of none */
  uint64_t chunk;               /* which */
};

/* Reads the bits of a chunk that lies in the file at host, if they are not at
 * hand.
 */
static int
read_chunk (const struct layer *layer, struct source *s, uint64_t chunk,
            uint64_t host)
{
  const uint64_t size = layer_cluster_size (layer);
  int r;

  if (s->bits && s->chunk == chunk)
    return 0;
  if (s->bits == NULL && (s->bits = malloc (size)) == NULL)
    return -ENOMEM;
  r = store_pread (layer->file, s->bits, size, host);
  s->chunk = r == 0 ? chunk : UINT64_MAX;
  return r;
}

/* Is the byte at offset dirty, and up to where (at most end) is the rest like
 * it, or may be?  Returns 1, 0 or -errno.
 */
static int
look_at (const struct layer *layer, struct source *s, uint64_t offset,
         uint64_t end, uint64_t *next)
{
  const unsigned granularity = s->bitmap->granularity_bits;
  const unsigned chunk_bits = bitmap_chunk_bits (&layer->header);
  const uint64_t bit = offset >> granularity;
  const uint64_t chunk = bit >> chunk_bits;
  const uint64_t first = bit & ((UINT64_C (1) << chunk_bits) - 1);
  const uint64_t entry = be64_get (s->table[chunk]);
  const uint64_t host = entry & QCOW2_BITMAP_OFFSET;
  const uint64_t bits_left = (UINT64_C (1) << chunk_bits) - first;
  const uint64_t bits_wanted = ((end - 1) >> granularity) - bit + 1;
  uint64_t n = min64 (bits_left, bits_wanted);
  int r;

  if (host) {
    if ((r = read_chunk (layer, s, chunk, host)) < 0)
      return r;
    n = same_bits (s->bits, first, first + n);
  }
  *next = min64 ((bit + n) << granularity, end);
  return host ? le64toh (s->bits[first / 64]) >> (first % 64) & 1
              : !!(entry & QCOW2_BITMAP_ALL_ONES);
}

/* Shows what is dirty in any of the sources. */
static int
show (const struct layer *layer, struct source *sources, size_t nr,
      uint64_t count, uint64_t offset, extent_fn fn, void *opaque)
{
  const uint64_t end = offset + count;
  int r = 0;

  while (r == 0 && offset < end) {
    uint64_t dirty_end = offset, clean_end = end, next;

    for (size_t i = 0; i < nr; i++) {
      r = look_at (layer, &sources[i], offset, end, &next);
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
        report_inconsistent (image->top, e->bitmap);
      return -EIO;
    }
    sources[nr++] = (struct source) {
      .bitmap = e->bitmap, .table = e->table
    };
  }
  r = show (image->top, sources, nr, count, offset, fn, opaque);
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
  s = (struct source) { .bitmap = b, .table = table };
  r = show (layer, &s, 1, layer->size, 0, add_dirty, bytes);
  free (s.bits);
  if (r < 0)
    bitmap_report_table (layer->file, b, r);
  return r;
}
