/* qcow2ext: persistent dirty bitmaps.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_BITMAP_H
#define QCOW2_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/chain.h"

struct writer;

/* A bitmap of the directory. */
struct bitmap {
  char *name;
  uint32_t flags;               /* QCOW2_BITMAP_*, as on disk */
  unsigned granularity_bits;    /* log2 of the guest bytes a bit stands for */
  bool usable;                  /* consistent, and we know all of it */
  uint64_t flags_offset;        /* of the flags, in the image file */
  uint64_t table_offset;        /* bytes, in the image file */
  uint32_t table_entries;

  /* While changes are recorded: the table, and for each of its entries the
   * bits that were set since they were last stored (NULL: none).
   */
  be64 *table;
  _Atomic (_Atomic uint8_t *) *fresh;
  atomic_bool lost;             /* a change could not be recorded */
};

struct bitmap_list {
  size_t count;
  bool damaged;                 /* the directory is not sound (reported) */
  struct bitmap bitmap[];
};

/* Reads the bitmap directory of an image, if its bitmaps are valid.  One that
 * is not sound does not fail this, but the image must then not be written to.
 * Returns 0 or -errno (reported).
 *
 * Spec: "Bitmaps".
 */
int bitmap_list_read (struct layer *layer);
void bitmap_list_free (struct layer *layer);

/* Makes extents show the bitmap of that name; 0 or -errno (reported). */
int bitmap_show (struct image *image, const char *name);

/* Like image_extents, but dirty ranges of the bitmap are data, clean ones
 * holes.
 */
int bitmap_extents (struct image *image, uint64_t count, uint64_t offset,
                    extent_fn fn, void *opaque);

/* Calls fn for each host range that holds bitmap metadata.  Returns 0, -errno
 * or what fn returned.
 */
typedef int (*bitmap_range_fn) (void *opaque, const char *what,
                                uint64_t offset, uint64_t length);
int bitmap_walk_ranges (struct layer *layer, bitmap_range_fn fn,
                        void *opaque);

/* Prepares for recording changes, before the first one. */
int bitmap_start (struct writer *w);
void bitmap_stop (struct writer *w); /* takes that back */

/* Marks the bitmaps that record changes as in use, durably. */
int bitmap_open (struct writer *w);

/* Records that a guest range changes. */
void bitmap_record (struct layer *layer, uint64_t count, uint64_t offset);

/* Stores what was recorded and marks the bitmaps as consistent, if no change
 * is under way.  What was written before is durable.  Returns 0 or -errno.
 */
int bitmap_close (struct writer *w);

#endif /* QCOW2_BITMAP_H */
