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

struct image {
  struct layer *top;            /* the image that is served; what lies below
                                   hangs on it by ->backing */
  struct l2_cache *tables;   /* of all layers */
  struct decoded_cache *decoded; /* likewise */
  bool damaged;                 /* a check has found errors */

  /* The bitmap that extents show, not the mapping (NULL: none), and its
   * table.
   */
  const struct bitmap *exported_bitmap;
  be64 *exported_table;
};

#endif /* QCOW2_CHAIN_H */
