/* qcow2ext: a dirty bitmap, shown as extents.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_BITMAP_EXPORT_H
#define QCOW2_BITMAP_EXPORT_H

#include "image/chain.h"

/* Makes image_extents show the bitmap of that name.  Returns 0 or -errno
 * (reported).
 */
int bitmap_export (struct image *image, const char *name);

/* Like image_extents, of the bitmap: dirty ranges are data, clean ones holes
 * that read as zeros.
 */
int bitmap_extents (struct image *image, uint64_t count, uint64_t offset,
                    extent_fn fn, void *opaque);

#endif /* QCOW2_BITMAP_EXPORT_H */
