/* qcow2ext: checks small qcow2 images in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Written from the specification, and independent of the engine on purpose:
 * it shares no line with what it judges.
 */

#ifndef IMAGE_CHECKER_H
#define IMAGE_CHECKER_H

#include <stdbool.h>
#include <stdint.h>

#include "store-memory.h"

#define CHECKER_BITMAPS 8

struct checker {
  /* What was found. */
  unsigned errors;
  unsigned leaks;               /* clusters with too high a count */
  char message[256];            /* the first error */
  uint64_t size;                /* of the disk */
  uint64_t cluster;             /* bytes */
  uint64_t end;                 /* clusters up to the last one in use */
  uint8_t *guest;               /* what the guest sees */
  uint8_t *snapshot;            /* likewise of the snapshot, if there is one */
  bool has_snapshot;
  bool unknown_autoclear;       /* an autoclear bit that nobody knows is set */
  bool dirty;                   /* the dirty bit: counts are not believed */
  unsigned bitmaps;
  struct {
    unsigned flags;             /* 1: in use, 2: records changes */
    uint64_t granule;           /* bytes */
    uint8_t *bits;              /* a byte for each granule */
  } bitmap[CHECKER_BITMAPS];
  uint8_t *is_data;             /* for each sector: it is mapped as data */

  /* Kept from one check to the next. */
  uint64_t guest_room, cluster_room;
  struct cluster_use *use;
};

/* Errors are what a reader, a writer or qemu-img check would stumble over:
 * counts lower than the references, copied flags that do not agree with the
 * counts, pointers that are misaligned or lead out of the file, a cluster
 * with two owners.  Leaks are none.
 */
void checker_run (struct checker *c, const struct memory_file *image,
                  const struct memory_file *data,
                  const struct memory_file *backing);
void checker_free (struct checker *c);

#endif /* IMAGE_CHECKER_H */
