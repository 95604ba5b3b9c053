/* qcow2ext: writes clusters compressed.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_COMPRESSED_WRITE_H
#define QCOW2_COMPRESSED_WRITE_H

#include "data/writer.h"

/* Writes whole clusters (the last one may be cut short by the disk's end),
 * each of them compressed if that saves something.  The caller holds no range
 * lock.  0 or -errno.
 */
int compressed_write (struct writer *w, const uint8_t *data, uint64_t count,
                      uint64_t offset);

#endif /* QCOW2_COMPRESSED_WRITE_H */
