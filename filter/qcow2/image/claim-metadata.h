/* qcow2ext: fills the map of metadata clusters.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_CLAIM_METADATA_H
#define QCOW2_CLAIM_METADATA_H

#include "data/writer.h"

/* At the beginning of a session, with the refcount table in memory.  0 or
 * -errno; two structures that overlap end writing.
 */
int claim_metadata (struct writer *w);

#endif /* QCOW2_CLAIM_METADATA_H */
