/* qcow2ext: the directory of persistent dirty bitmaps, and their tables.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The bits of a bitmap lie in chunks of one cluster each.  Its table has an
 * entry for each chunk: where it lies, or that all of its bits are 0 or 1.
 *
 * Spec: "Bitmaps".
 */

#ifndef QCOW2_BITMAP_DIRECTORY_H
#define QCOW2_BITMAP_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/store.h"
#include "disk/format.h"
#include "disk/header.h"

/* A bitmap of the directory. */
struct bitmap {
  char *name;
  uint32_t flags;               /* QCOW2_BITMAP_*, as on disk */
  unsigned granularity_bits;    /* log2 of the guest bytes a bit stands for */
  bool usable;                  /* consistent, and we know all of it */
  uint64_t flags_offset;        /* of the flags, in the image file */
  uint64_t table_offset;        /* bytes, in the image file */
  uint32_t table_entries;
};

struct bitmap_list {
  size_t count;
  bool damaged;                 /* the directory is not sound (reported) */
  struct bitmap bitmap[];
};

/* log2 of the bits in a chunk. */
static inline unsigned
bitmap_chunk_bits (const struct header *h)
{
  return h->cluster_bits + 3;
}

/* How many chunks hold the bits of the whole disk. */
uint64_t bitmap_chunks (const struct header *h, const struct bitmap *b);

/* Reads the bitmap directory of an image, if its bitmaps are valid; *list is
 * NULL if not.  A directory that is not sound does not fail this, but the
 * image must then not be written to.  file_size is the image file's, in bytes.
 * Returns 0 or -errno (reported).  The caller frees the list in either case.
 */
int bitmap_list_read (struct store *file, uint64_t file_size,
                      const struct header *h, struct bitmap_list **list);
void bitmap_list_free (struct bitmap_list *list);

/* Is an entry of a bitmap's table one that the specification allows, and
 * within the file?
 */
bool bitmap_entry_is_sound (const struct header *h, uint64_t file_size,
                            uint64_t entry);

/* Reads the table of a bitmap, as far as the disk's size needs it, with all of
 * its entries sound.  Returns 0 or -errno (reported).  The caller frees it.
 */
int bitmap_read_table (struct store *file, uint64_t file_size,
                       const struct header *h, const struct bitmap *b,
                       be64 **table);

/* Reports that the table could not be read, or is damaged (-EINVAL). */
void bitmap_report_table (const struct store *file, const struct bitmap *b,
                          int error);

#endif /* QCOW2_BITMAP_DIRECTORY_H */
