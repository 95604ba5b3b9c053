/* qcow2ext: opening one layer.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_LAYER_OPEN_H
#define QCOW2_LAYER_OPEN_H

#include "image/env.h"
#include "map/layer.h"

/* Opens the layer in store: reads its header, L1 table and, of the image that
 * is served (depth 0), snapshots and bitmaps; opens its data file, but not
 * what is below it.  Takes the store, even if this fails.  Returns 0 or
 * -errno (reported); *layer is set or NULL, and to be closed in either case.
 */
int layer_open (struct store *store, enum image_format format,
                const struct image_options *options, unsigned depth,
                struct layer **layer);

/* Frees a layer and its stores.  Nothing is cached of it any more. */
void layer_close (struct layer *layer);

#endif /* QCOW2_LAYER_OPEN_H */
