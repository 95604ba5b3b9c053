/* qcow2ext: where the metadata of an image is.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Unlike image-checker.c, this takes any image, however damaged, and says
 * only what lies where: whatever the header and the tables lead to, as far as
 * it is within the file.  Written from the specification and independent of
 * the engine.
 */

#ifndef IMAGE_WALKER_H
#define IMAGE_WALKER_H

#include <stdbool.h>
#include <stdint.h>

#include "store-memory.h"

/* What a host cluster is; it can be several things at once. */
enum {
  IS_HEADER = 1 << 0,
  IS_L1 = 1 << 1,
  IS_L2 = 1 << 2,
  IS_REFTABLE = 1 << 3,
  IS_REFBLOCK = 1 << 4,
  IS_SNAPSHOTS = 1 << 5,        /* the table of snapshots */
  IS_SNAPSHOT_L1 = 1 << 6,
  IS_SNAPSHOT_L2 = 1 << 7,
  IS_BITMAPS = 1 << 8,          /* the directory of bitmaps */
  IS_BITMAP_TABLE = 1 << 9,
  IS_BITMAP = 1 << 10,          /* bits */
  IS_CRYPTO = 1 << 11,          /* the LUKS header */
  IS_DATA = 1 << 12,            /* the guest's */
  IS_PACKED = 1 << 13,          /* compressed, the guest's */
};
#define IS_METADATA (IS_DATA - 1)

struct walker {
  bool valid;                   /* there is a header to start from */
  unsigned version, bits, order;
  bool external, extended, encrypted;
  uint64_t size;                /* of the disk */
  uint64_t cluster, clusters;   /* bytes; in the file */
  uint16_t *what;               /* of each cluster: IS_* */
  bool overlap;                 /* metadata is where something else is */

  /* The first of each kind, or 0: for whoever plants lies. */
  uint64_t l1, l2, reftable, refblock, snapshots, snapshot_l1, snapshot_l2;
  uint64_t bitmaps, bitmap_table, bitmap, bitmaps_extension;
  uint64_t data, packed;        /* host offset of the first such cluster */
  uint64_t data_entry, packed_entry; /* where the L2 entry is */

  uint64_t room;                /* kept from one walk to the next */
};

void walker_run (struct walker *w, const struct memory_file *image);
void walker_free (struct walker *w);

/* All that lies in a host range. */
unsigned walker_what (const struct walker *w, uint64_t offset,
                      uint64_t length);

/* Names the lowest of the kinds. */
const char *walker_name (unsigned what);

#endif /* IMAGE_WALKER_H */
