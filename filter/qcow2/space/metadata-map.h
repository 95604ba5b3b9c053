/* qcow2ext: the set of host clusters that hold metadata.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Before guest data is written to the image file, and before a cluster is
 * taken or let go of, this says whether it holds metadata: then the image is
 * unsound.
 *
 * The map has a lock of its own, which is taken after all others but those of
 * messages.  That a cluster of a table is in the map from before its table is
 * used until it is free is up to the allocator.
 */

#ifndef QCOW2_METADATA_MAP_H
#define QCOW2_METADATA_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/brlock.h"
#include "commit/health.h"
#include "disk/metadata-walk.h"
#include "space/cluster-set.h"

/* Host clusters first to last. */
struct cluster_range {
  uint64_t first, last;
};

struct metadata_map {
  struct brlock lock;
  unsigned cluster_bits;

  /* Structures that stay where they are while the image is written to, sorted,
   * none touching another; constant once built.  What they claim may be much
   * more than the file holds of them.
   */
  struct cluster_range *fixed;
  size_t nr_fixed, fixed_room;

  /* An L2 table that does not lie within the file is lost.  Such ones, which
   * may be anywhere, are not in the map unless they begin in the file.  Where
   * the first of them would be (a cluster), the file ends for the allocator:
   * grown beyond that, it would make something else look like that table.
   * Constant once built.
   */
  uint64_t first_lost;          /* UINT64_MAX: none */

  struct cluster_set single;    /* all others; under the lock */
  struct cluster_set snapshot_tables; /* those of them that hold the L2 tables
                                   of snapshots; constant once built */
};

void metadata_map_init (struct metadata_map *m, unsigned cluster_bits);
void metadata_map_clear (struct metadata_map *m);
void metadata_map_destroy (struct metadata_map *m);

/* Adds all metadata of an image, before the first change of a session.  Two
 * structures that overlap end writing.  Returns 0 or -errno.
 */
int metadata_map_build (struct metadata_map *m,
                        const struct metadata_source *source,
                        struct health *health);

/* Does a host range (bytes) touch a cluster of metadata? */
bool metadata_map_overlaps (struct metadata_map *m, uint64_t offset,
                            uint64_t length);

/* Adds a cluster of a table (0 or -ENOMEM), and takes one away that is none
 * any more.
 */
int metadata_map_add (struct metadata_map *m, uint64_t cluster);
void metadata_map_remove (struct metadata_map *m, uint64_t cluster);

/* Is there an L2 table of a snapshot?  It may be shared, and stays metadata as
 * long as the image is written to.
 */
bool metadata_map_is_snapshot_table (const struct metadata_map *m,
                                     uint64_t cluster);

#endif /* QCOW2_METADATA_MAP_H */
