/* qcow2ext: writes a guest range.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_WRITE_RANGE_H
#define QCOW2_WRITE_RANGE_H

#include "data/writer.h"

/* In place where that may be, and otherwise by copying.  The caller holds no
 * range lock.  0 or -errno.
 */
int write_range (struct writer *w, const uint8_t *data, uint64_t count,
                 uint64_t offset);

#endif /* QCOW2_WRITE_RANGE_H */
