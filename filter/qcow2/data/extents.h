/* qcow2ext: which parts of the guest's disk are data, which are zeros.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_EXTENTS_H
#define QCOW2_EXTENTS_H

#include "map/layer.h"

/* Reports the extents of a guest range (bytes), merged over the layer and
 * those below it.  What cannot be read is reported as data, so that a reader
 * gets the error.  Neighbours of equal type are not merged.  Returns 0 or
 * what fn returned.
 */
int layer_extents (struct layer *layer, uint64_t count, uint64_t offset,
                   extent_fn fn, void *opaque);

#endif /* QCOW2_EXTENTS_H */
