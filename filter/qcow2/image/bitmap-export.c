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

int
bitmap_export (struct image *image, const char *name)
{
  struct layer *layer = image->top;
  const struct bitmap_list *list = layer->bitmaps;

  for (size_t i = 0; list && !list->damaged && i < list->count; i++) {
    const struct bitmap *b = &list->bitmap[i];

    if (strcmp (b->name, name) != 0)
      continue;
    if (!b->usable) {
      report_error ("%s: bitmap \"%s\" is inconsistent: it was in use when "
                    "somebody stopped, and does not tell what has changed",
                    layer->file->name, name);
      return -EINVAL;
    }
    image->exported_bitmap = b;
    return bitmap_read_table (layer->file, layer_file_size (layer),
                              &layer->header, b, &image->exported_table);
  }
  report_missing (layer->file, list, name);
  return -ENOENT;
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

/* Shows the range [offset, end), whose bits lie in one chunk. */
static int
show_chunk (struct image *image, const uint64_t *bits, uint64_t offset,
            uint64_t end, extent_fn fn, void *opaque)
{
  const unsigned granularity = image->exported_bitmap->granularity_bits;
  const uint64_t mask =
    (UINT64_C (1) << bitmap_chunk_bits (&image->top->header)) - 1;
  const uint64_t last = (end - 1) >> granularity & mask;

  while (offset < end) {
    const uint64_t bit = offset >> granularity;
    const uint64_t n = same_bits (bits, bit & mask, last + 1);
    const uint64_t next = min64 ((bit + n) << granularity, end);
    const bool dirty =
      le64toh (bits[(bit & mask) / 64]) >> (bit % 64) & 1;
    const int r = fn (opaque, offset, next - offset, dirty ? DIRTY : CLEAN);

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
  const unsigned reach =        /* of a chunk: log2 of bytes */
    bitmap_chunk_bits (&layer->header) + b->granularity_bits;
  const uint64_t size = layer_cluster_size (layer);
  const uint64_t end = offset + count;
  CLEANUP_FREE uint64_t *bits = NULL;
  int r = 0;

  while (r == 0 && offset < end) {
    const uint64_t index = offset >> reach;
    const uint64_t entry = be64_get (image->exported_table[index]);
    const uint64_t host = entry & QCOW2_BITMAP_OFFSET;
    const uint64_t left =
      (UINT64_C (1) << reach) - (offset & ((UINT64_C (1) << reach) - 1));
    const uint64_t next = offset + min64 (left, end - offset);

    if (host == 0)
      r = fn (opaque, offset, next - offset,
              entry & QCOW2_BITMAP_ALL_ONES ? DIRTY : CLEAN);
    else {
      if (bits == NULL && (bits = malloc (size)) == NULL)
        return -ENOMEM;
      r = store_pread (layer->file, bits, size, host);
      if (r == 0)
        r = show_chunk (image, bits, offset, next, fn, opaque);
    }
    offset = next;
  }
  return r;
}
