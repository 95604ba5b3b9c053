/* qcow2ext: do the bitmaps of an image still tell the truth?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef BITMAP_COPY_H
#define BITMAP_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "history.h"
#include "image-checker.h"

struct bitmap_copy;

/* The bitmaps as the checker has seen them; NULL: there are none. */
struct bitmap_copy *copy_bitmaps (const struct checker *c);
void free_bitmaps (struct bitmap_copy *copy, unsigned n);

/* Do the bitmaps tell the truth, if they are not marked as in use?  Those that
 * do not record, and those that were in use before us, stay as they are.
 * fate: an enum fate for each sector.  "closed": none may be in use now.
 */
bool bitmaps_hold (const struct checker *c, const struct bitmap_copy *before,
                   const uint8_t *fate, bool closed, char why[128]);

#endif /* BITMAP_COPY_H */
