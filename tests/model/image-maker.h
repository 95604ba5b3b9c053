/* qcow2ext: makes small qcow2 images in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Written from the specification and independent of the engine, as is
 * image-checker.c.
 */

#ifndef IMAGE_MAKER_H
#define IMAGE_MAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "data/write-options.h"
#include "store-memory.h"

struct image_spec {
  const char *name;
  unsigned version;             /* 2 or 3 */
  unsigned cluster_bits;
  unsigned refcount_order;      /* 4 in version 2 */
  uint64_t size;                /* of the disk, a multiple of 512 */

  /* What guest clusters are, repeated:
   *   .  unallocated
   *   D  data
   *   Z  zero
   *   A  zero, with a place where old bytes are
   *   C  compressed (several in one host cluster, and one in two)
   *   S  extended L2 only: subclusters are data, zero, unallocated in turn
   */
  const char *map;

  bool external, raw;           /* a data file; its raw bit */
  bool extended;                /* extended L2 entries */
  bool lazy;                    /* the lazy_refcounts flag */
  bool backing;                 /* a raw backing file, shorter than the disk */
  bool snapshot;                /* an internal snapshot shares all there is */
  bool holes;                   /* free clusters with old bytes in between */
  bool stale;                   /* a data file holds old bytes where nothing
                                   is mapped */
  bool short_data;              /* the data file ends behind its last data */
  uint64_t leaked;              /* so many clusters have a refcount of 1 */
  bool no_discard;              /* the stores cannot punch holes */
  bool bitmaps;                 /* five of them, see make_bitmaps */
  bool dirty;                   /* the dirty bit is set, counts are wrong */
  bool encrypted;               /* with the toy cipher; version 3 only */
  struct write_options write;   /* how it is written to */
  bool device;                  /* the image lies on a device, which has room
                                   but keeps its size */
};

/* Sector contents: those of the image at the start, of the backing file, and
 * old bytes that nobody must ever see.  Writes use numbers from PATTERN_FIRST
 * on.
 */
enum { PATTERN_INITIAL = 1, PATTERN_BACKING, PATTERN_OLD, PATTERN_FIRST };

/* How many there are if an image has bitmaps. */
#define MAKER_BITMAPS 5

/* The content of a guest sector with a number.  Three in four of those that are
 * written can be compressed.
 */
void make_pattern (uint8_t buf[MEMORY_SECTOR], uint32_t number,
                   uint64_t sector);

/* Makes the image, and what the guest sees in it (size bytes). */
void make_image (const struct image_spec *spec, struct memory_file *image,
                 struct memory_file *data, struct memory_file *backing,
                 uint8_t *guest);

/* Is the guest cluster one that holds old bytes in a raw data file? */
bool is_stale (const struct image_spec *spec, uint64_t cluster);

/* Has it subclusters of several kinds? */
bool is_mixed (const struct image_spec *spec, uint64_t cluster);

#endif /* IMAGE_MAKER_H */
