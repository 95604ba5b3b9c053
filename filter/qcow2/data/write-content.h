/* qcow2ext: writes data as what it is.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_WRITE_CONTENT_H
#define QCOW2_WRITE_CONTENT_H

#include "data/writer.h"

/* Writes a guest range, with zeros and whole clusters treated as the writer's
 * options say.  The caller holds no range lock.  0 or -errno.
 */
int write_content (struct writer *w, const uint8_t *data, uint64_t count,
                   uint64_t offset);

#endif /* QCOW2_WRITE_CONTENT_H */
