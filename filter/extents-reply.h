/* qcow2ext: extents for a client.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_EXTENTS_REPLY_H
#define QCOW2EXT_EXTENTS_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include <nbdkit-filter.h>

#include "image/image.h"

/* Adds the extents of a guest range, neighbours of equal type joined; with
 * only_first, no more than one.  Returns 0 or -errno.
 */
int extents_reply (struct image *image, uint32_t count, uint64_t offset,
                   bool only_first, struct nbdkit_extents *extents);

#endif /* QCOW2EXT_EXTENTS_REPLY_H */
