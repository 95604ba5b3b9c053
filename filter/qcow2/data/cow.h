/* qcow2ext: writes that need a place, or take over what is there.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_COW_H
#define QCOW2_COW_H

#include "data/writer.h"

/* Writes the first part of a guest range (bytes) that is not data of ours
 * alone.  *done is how much; 0: another request has changed it, look again.
 * The caller does not count as a request in place.  Takes the range lock.  0
 * or -errno, and then the guest sees the old state.
 */
int cow_write (struct writer *w, const uint8_t *data, uint64_t count,
               uint64_t offset, uint64_t *done);

#endif /* QCOW2_COW_H */
