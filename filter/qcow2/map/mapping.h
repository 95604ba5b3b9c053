/* qcow2ext: from guest ranges to what the tables say of them.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_MAPPING_H
#define QCOW2_MAPPING_H

#include <stdint.h>

#include "disk/l2-entry.h"
#include "map/layer.h"

/* Looks up the longest run that starts at guest offset, of at most max (> 0)
 * bytes; offset + max must lie within layer->size.  A run may be shorter
 * than the truth only at a multiple of a cluster where something that cannot
 * be merged (invalid, compressed) begins or ends.  Loads tables as needed.
 *
 * Spec: "Cluster mapping", "Extended L2 Entries".
 */
void mapping_lookup (struct layer *layer, uint64_t offset, uint64_t max,
                     struct run *run);

/* What the tables say of one cluster: the L2 entry with its bitmap (0 without
 * extended L2), 0 where there is no L2 table; and the entry interpreted
 * from the subcluster that holds guest offset on.  Returns 0, or a negative
 * errno (reported) if the cluster is not sound.
 */
struct mapping_entry {
  uint64_t entry, bitmap;
  struct run run;
};
int mapping_get_entry (struct layer *layer, uint64_t offset,
                       struct mapping_entry *e);

/* Reports why an invalid run at guest offset cannot be read (not too often)
 * and returns its error.
 */
int mapping_report (struct layer *layer, uint64_t offset,
                    const struct run *run);

#endif /* QCOW2_MAPPING_H */
