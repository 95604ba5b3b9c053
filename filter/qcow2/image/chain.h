/* qcow2ext: what an open image consists of.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * For this room only: to everybody else struct image is opaque (image.h).
 */

#ifndef QCOW2_CHAIN_H
#define QCOW2_CHAIN_H

#include "map/layer.h"

/* How many layers a chain may have. */
#define IMAGE_MAX_DEPTH 200

/* A bitmap that extents show. */
struct exported_bitmap {
  struct exported_bitmap *next;
  const struct layer *layer;    /* that has it */
  const struct bitmap *bitmap;
  be64 *table;                  /* NULL: it is inconsistent */
};

struct image {
  struct layer *top;            /* the image that is served; what lies below
                                   hangs on it by ->backing */
  struct l2_cache *tables;      /* of all layers */
  struct decoded_cache *decoded; /* likewise, and of other images */
  bool damaged;                 /* a check has found errors */

  struct exported_bitmap *exported; /* extents show these, not the mapping;
                                       NULL: none */
};

#endif /* QCOW2_CHAIN_H */
