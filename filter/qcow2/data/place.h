/* qcow2ext: where the guest's clusters lie.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Decided once, when an image is opened for writing:
 *
 *   place-alloc  in the image file, beside the metadata: a cluster has the
 *                place that an entry says, or is given one by the allocator
 *   place-fixed  in a data file, at the guest's offset, allocated or not
 *
 * What a copying write asks of the place it has (placement) goes through the
 * operations.  Requests that only want to know which of the two it is look at
 * "fixed".
 */

#ifndef QCOW2_PLACE_H
#define QCOW2_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "data/known-holes.h"
#include "map/mapping-update.h"

/* Where a run of clusters goes that is written with what surrounds it. */
struct placement {
  uint64_t cluster;             /* guest offset of the first */
  uint64_t clusters;
  uint64_t host;                /* of the first, in layer->clusters */
  bool is_new;                  /* allocated for this; nothing refers to it */
  bool needs_whole;             /* each cluster has to be written as a whole */
  bool reads_as_zeros;          /* known of what surrounds the data there;
                                   never of an encrypted place */

  /* Of place-fixed: */
  bool known_hole;              /* all of it is one, or mapped */
  uint64_t generation;          /* of the known holes */
  uint64_t hole_start, hole_end; /* of the file, if one was found */
};

struct place;

struct place_ops {
  /* The guest range has just been locked. */
  void (*begin) (struct place *place, struct placement *p, uint64_t start,
                 uint64_t end);

  /* Finds a place for up to want clusters from p->cluster on, whose first
   * entry and bitmap of subclusters are given.  Sets what p says of the
   * place.  0 or -errno.
   */
  int (*find) (struct place *place, struct placement *p, uint64_t want,
               uint64_t entry, uint64_t bitmap);

  /* Sets p->reads_as_zeros for a guest range. */
  void (*look) (struct place *place, struct placement *p, uint64_t start,
                uint64_t end);

  /* The write has ended.  After an error the place is given back, and a guest
   * range (perhaps empty) that was zeros is made so again.
   */
  void (*end) (struct place *place, struct placement *p, int error,
               uint64_t start, uint64_t end);

  /* Entries of a guest range read as zeros from now on; with unmap they have
   * let go of their places.  The range is still locked.
   */
  void (*released) (struct place *place, uint64_t count, uint64_t offset,
                    bool unmap);
};

struct place {
  const struct place_ops *ops;
  struct layer *layer;
  struct mapping_update *update;
  bool fixed;                   /* place-fixed */
  bool is_disk;                 /* what is there is the guest's disk by itself:
                                   zeros must be zeros there */
  uint64_t end;                 /* what surrounds guest data is not written
                                   from this guest offset on */
  struct known_holes holes;     /* of place-fixed */
};

/* Decides. */
void place_init (struct place *place, struct layer *layer,
                 struct mapping_update *update);
void place_destroy (struct place *place);

extern const struct place_ops place_alloc_ops, place_fixed_ops;

#endif /* QCOW2_PLACE_H */
