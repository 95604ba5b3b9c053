/* qcow2ext: writing guest data, zeroing, trimming.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_WRITE_H
#define QCOW2_WRITE_H

#include "map/layer.h"

/* See image_write, image_zero (flags are STORE_ZERO_*) and image_trim. */
int layer_write (struct layer *layer, const void *buf, size_t count,
                 uint64_t offset);
int layer_zero (struct layer *layer, uint64_t count, uint64_t offset,
                unsigned flags);
int layer_trim (struct layer *layer, uint64_t count, uint64_t offset);

#endif /* QCOW2_WRITE_H */
