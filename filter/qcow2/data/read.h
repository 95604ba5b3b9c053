/* qcow2ext: reading guest data.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_READ_H
#define QCOW2_READ_H

#include "map/layer.h"

/* Reads guest data of a layer and what is below it.  offset + count (bytes)
 * must lie within layer->size.  May be called by many threads at once; holds
 * no lock across I/O.  Returns 0 or -errno (reported, but not too often).
 */
int layer_read (struct layer *layer, void *buf, size_t count,
                uint64_t offset);

/* Prefetches a guest range into the caches below.  Never fails for want of
 * memory or because something is unreadable: reading will tell.
 */
void layer_cache (struct layer *layer, uint64_t count, uint64_t offset);

#endif /* QCOW2_READ_H */
