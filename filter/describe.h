/* qcow2ext: what an export is, for people.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_DESCRIBE_H
#define QCOW2EXT_DESCRIBE_H

#include <stdbool.h>

#include "disk/snapshot.h"
#include "served-image.h"

/* One line each, with nothing in it that could forge another one.  The caller
 * frees it.  NULL: there is no memory.
 */
char *describe_snapshot (const struct snapshot *snapshot);

/* With count, the bitmap is read to see how much has changed. */
char *describe_bitmap (const struct image *image, size_t index, bool count);

/* Of an export that is open as that image. */
char *describe_export (const struct image *image,
                       const struct export *export);

#endif /* QCOW2EXT_DESCRIBE_H */
