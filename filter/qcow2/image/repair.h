/* qcow2ext: what an image needs before its first change.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_REPAIR_H
#define QCOW2_REPAIR_H

#include "data/writer.h"

/* Rebuilds the refcounts of an image that was not closed properly, and clears
 * autoclear bits that vouch for what we do not keep true.  0 or -errno
 * (reported); -EROFS: cannot be repaired.
 */
int repair_image (struct writer *w);

/* Makes a raw data file as long as the disk.  0 or -errno (reported). */
int repair_data_file (struct writer *w);

#endif /* QCOW2_REPAIR_H */
