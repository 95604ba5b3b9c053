/* qcow2ext: the directory of persistent dirty bitmaps, and their tables.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "base/report.h"
#include "disk/bitmap-directory.h"
#include "disk/table.h"

uint64_t
bitmap_chunks (const struct header *h, const struct bitmap *b)
{
  return div_round_up (div_round_up (h->size, b->granularity_bits),
                       bitmap_chunk_bits (h));
}

/* Parses one entry at pos of the directory.  Returns its length, or 0 if it
 * is not sound.  Without memory, the name is NULL.
 */
static size_t
parse_entry (const struct header *h, uint64_t file_size, const uint8_t *dir,
             size_t pos, struct bitmap *b)
{
  const size_t size = h->bitmap_directory_size;
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
  length = round_up (sizeof disk + (uint64_t) extra + name_size, 8);
  if (length > size - pos)
    return 0;

  b->flags = be32_get (disk.flags);
  b->granularity_bits = disk.granularity_bits;
  b->flags_offset = h->bitmap_directory_offset + pos
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
      || b->table_offset & ((UINT64_C (1) << h->cluster_bits) - 1)
      || __builtin_add_overflow (b->table_offset,
                                 entries_bytes (b->table_entries), &table_end)
      || table_end > file_size
      || (uint64_t) b->table_entries << h->cluster_bits
         > QCOW2_MAX_BITMAP_BYTES)
    return 0;
  b->usable = !(b->flags & QCOW2_BITMAP_IN_USE)
    && (extra == 0 || b->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE);
  if (b->usable && b->table_entries < bitmap_chunks (h, b))
    return 0;
  b->name = strndup (name, name_size);
  return length;
}

/* Parses the directory into the list.  Returns 0, -EINVAL if it is not sound,
 * or -ENOMEM.
 */
static int
parse_directory (const struct header *h, uint64_t file_size,
                 const uint8_t *dir, struct bitmap_list *list)
{
  uint64_t entries = 0;
  size_t pos = 0;

  while (list->count < h->nb_bitmaps) {
    struct bitmap *b = &list->bitmap[list->count];
    const size_t n = parse_entry (h, file_size, dir, pos, b);

    if (n == 0)
      return -EINVAL;
    list->count++;
    if (b->name == NULL)
      return -ENOMEM;
    /* Each may be in order, but all of them are kept in memory together. */
    entries += b->table_entries;
    if (entries > QCOW2_MAX_BITMAP_ENTRIES)
      return -EINVAL;
    pos += n;
  }
  return pos == h->bitmap_directory_size ? 0 : -EINVAL;
}

/* Each entry takes some space in the directory, and that in the file. */
static bool
is_within_file (const struct header *h, uint64_t file_size)
{
  return h->bitmap_directory_offset <= file_size
    && h->bitmap_directory_size <= file_size - h->bitmap_directory_offset
    && h->nb_bitmaps <= h->bitmap_directory_size / sizeof (struct qcow2_bitmap);
}

int
bitmap_list_read (struct store *file, uint64_t file_size,
                  const struct header *h, struct bitmap_list **list)
{
  const bool within = is_within_file (h, file_size);
  CLEANUP_FREE uint8_t *dir = NULL;
  int r = -EINVAL;

  *list = NULL;
  if (!h->has_bitmaps || !(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
    return 0;

  *list = calloc (1, sizeof **list
                  + (within ? h->nb_bitmaps * sizeof (struct bitmap) : 0));
  if (*list == NULL)
    return -ENOMEM;
  if (within) {
    dir = malloc (h->bitmap_directory_size);
    if (dir == NULL)
      return -ENOMEM;
    r = store_pread (file, dir, h->bitmap_directory_size,
                     h->bitmap_directory_offset);
    if (r < 0) {
      report_error ("%s: the bitmap directory cannot be read: %s", file->name,
                    strerror (-r));
      return r;
    }
    r = parse_directory (h, file_size, dir, *list);
  }
  if (r != -EINVAL)
    return r;
  (*list)->damaged = true;
  report_warning ("%s: the bitmap directory is damaged, or its bitmaps are too "
                  "large", file->name);
  return 0;
}

void
bitmap_list_free (struct bitmap_list *list)
{
  for (size_t i = 0; list && i < list->count; i++)
    free (list->bitmap[i].name);
  free (list);
}

/* --- tables --- */

bool
bitmap_entry_is_sound (const struct header *h, uint64_t file_size,
                       uint64_t entry)
{
  const uint64_t host = entry & QCOW2_BITMAP_OFFSET;

  return !(entry & QCOW2_BITMAP_RESERVED)
    && !(host && entry & QCOW2_BITMAP_ALL_ONES)
    && !(host & ((UINT64_C (1) << h->cluster_bits) - 1))
    && host < file_size;
}

void
bitmap_report_table (const struct store *file, const struct bitmap *b,
                     int error)
{
  report_error ("%s: bitmap \"%s\": the table %s", file->name, b->name,
                error == -EINVAL ? "is damaged" : "cannot be read");
}

int
bitmap_read_table (struct store *file, uint64_t file_size,
                   const struct header *h, const struct bitmap *b,
                   be64 **table)
{
  const uint64_t entries = bitmap_chunks (h, b);
  int r = table_read (file, b->table_offset, entries, table);

  for (uint64_t i = 0; r == 0 && i < entries; i++)
    if (!bitmap_entry_is_sound (h, file_size, be64_get ((*table)[i])))
      r = -EINVAL;
  if (r < 0) {
    bitmap_report_table (file, b, r);
    free (*table);
    *table = NULL;
  }
  return r;
}
