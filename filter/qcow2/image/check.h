/* qcow2ext: is an image consistent?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_CHECK_H
#define QCOW2_CHECK_H

#include <stdint.h>

#include "map/layer.h"

struct check_result {
  uint64_t errors;              /* what could lose data */
  uint64_t wrong_counts;        /* of the errors: refcounts that are too low;
                                   repairing the counts mends these */
  uint64_t wrong_flags;         /* of the errors: copied flags that do not
                                   agree with the count */
  uint64_t leaks;               /* clusters whose count is too high */
  uint32_t *counts;             /* what the refcounts should be, by cluster */
  uint64_t clusters;            /* how many: those of the file, and the one
                                   behind its end if it is referred to */
};

/* Walks all tables of the image as they are on disk, computes what every
 * refcount should be, and compares.  Counts as qemu-img check does.  The
 * first few findings are reported if "verbose".  Memory is 4 bytes for each
 * cluster of the image file.
 *
 * Returns 0, whatever was found, or -errno if it could not be done.  The
 * caller frees result->counts.
 */
int layer_check (struct layer *layer, bool verbose,
                 struct check_result *result);

#endif /* QCOW2_CHECK_H */
