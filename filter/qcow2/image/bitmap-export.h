/* qcow2ext: a dirty bitmap, shown as extents.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_BITMAP_EXPORT_H
#define QCOW2_BITMAP_EXPORT_H

#include "image/chain.h"

/* Makes image_extents show the bitmap of that name; called again, what is dirty
 * in any of them.  Fails if it is
 * inconsistent; with "any", it is then image_extents that fails.  Returns 0 or
 * -errno (reported).
 */
int bitmap_export (struct image *image, const char *name, bool any);

/* The same with the bitmaps of that name in the layers below, down to the last
 * one that has it; none may be left out or be inconsistent.
 */
int bitmap_export_chain (struct image *image, const char *name);
void bitmap_export_free (struct image *image);

/* Like image_extents, of the bitmap: dirty ranges are data, clean ones holes
 * that read as zeros.
 */
int bitmap_extents (struct image *image, uint64_t count, uint64_t offset,
                    extent_fn fn, void *opaque);

/* See image_bitmap_changed. */
int bitmap_changed (const struct image *image, size_t index, uint64_t *bytes);

#endif /* QCOW2_BITMAP_EXPORT_H */
