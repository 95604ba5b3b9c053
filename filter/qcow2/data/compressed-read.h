/* qcow2ext: reads clusters that are compressed.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_COMPRESSED_READ_H
#define QCOW2_COMPRESSED_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "map/mapping.h"

/* Reads guest data at offset, where first (RUN_COMPRESSED) has been looked up,
 * and what follows it in compressed clusters; count (bytes) lies within
 * layer->size.  *done: how much of that was read, at least the first run.
 * *ahead: as with decoded_cache_read, of the last cluster.  Takes no lock
 * across I/O.  Returns 0 or -errno (-EIO: reported).
 */
int compressed_read (struct layer *layer, uint64_t offset, size_t count,
                     const struct run *first, uint8_t *buf, size_t *done,
                     bool *ahead);

#endif /* QCOW2_COMPRESSED_READ_H */
