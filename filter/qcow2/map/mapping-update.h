/* qcow2ext: the only place that changes L2 and L1 tables.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The change lock, of this struct, makes a change of tables, and the frees that
 * follow from it, one: a commit collects all of it or nothing.  It guards the
 * lists of what is to be written (l1-table.h, l2-cache.h), and is held during
 * no I/O.  Under it are taken, one at a time, the cache's lock, and within
 * that the locks of deferred frees and of the metadata map; never the space
 * lock.
 *
 * That needs no common lock with the counts: a commit collects what is here
 * first and the counts after.  A pointer in a batch has its count in this
 * batch or an earlier one, for the count was raised before the pointer was
 * made.  What the batch has too much is a raised count: leaked at worst, and
 * only until the next commit.
 *
 * A commit takes the frees, a copy of the L1 table's changes and the list of
 * dirty tables in one hold of the lock, and then writes the tables in rounds,
 * so that it never unpacks all of them at once.  L1 comes with the last round:
 * each table to which it leads is there.  The frees count as committed after
 * that.
 *
 * All functions take the lock themselves.  A caller that changes entries has
 * the range lock on their guest clusters.
 */

#ifndef QCOW2_MAPPING_UPDATE_H
#define QCOW2_MAPPING_UPDATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "commit/commit.h"
#include "map/l1-table.h"
#include "map/layer.h"
#include "space/byte-allocator.h"
#include "space/deferred-free.h"

struct mapping_update {
  struct layer *layer;
  struct health *health;
  struct refcounts *counts;
  struct metadata_map *metadata;
  struct deferred_free *frees;
  pthread_mutex_t lock;         /* the change lock */
  struct l1_table l1;
  bool in_rounds;               /* a commit has begun and has more to collect */
  struct batch l1_changes;      /* of that commit, for its last round */
};

/* 0 or -ENOMEM. */
int mapping_update_init (struct mapping_update *u, struct layer *layer,
                         struct health *health, struct refcounts *counts,
                         struct deferred_free *frees);
void mapping_update_destroy (struct mapping_update *u);

/* A place in the image file that an entry names, but where metadata is, would
 * destroy the image if it were written to: -EIO, and writing has ended.
 */
int mapping_check_target (struct mapping_update *u, uint64_t host,
                          uint64_t length);

/* What an entry refers to is about to be replaced by what is yet to be
 * allocated.  If it counts as free, the image is corrupt: -EIO, and writing has
 * ended.
 */
int mapping_check_used (struct mapping_update *u, uint64_t entry);

/* Makes sure that there is an L2 table that is ours alone, which may need a
 * cluster and write it.  0 or -errno.
 */
int mapping_own_table (struct mapping_update *u, uint32_t l1_index);

/* Clusters of one L2 table of ours whose data has been written. */
struct publication {
  uint64_t cluster;             /* guest offset of the first */
  uint64_t clusters;
  uint64_t host;                /* of the first; the others follow */
  const struct packed *packed;  /* or where each lies, compressed; NULL: not */
  uint64_t start, end;          /* what was written, guest offsets */
  bool whole;                   /* each cluster was, whatever start and end */
  bool is_new;                  /* host is; what was there is let go of */
};

/* Makes the guest see all of it at once.  0 or -errno. */
int mapping_publish (struct mapping_update *u, const struct publication *p);

/* Makes whole subclusters (the last one may be cut short by the disk's end)
 * of one L2 table of ours read as zeros.  With unmap they let go of their
 * places.  *done (bytes) is how much was dealt with; 0: the first cluster
 * needs zeros to be written.  *changed: an entry changed.  0 or -errno.
 */
int mapping_zero (struct mapping_update *u, uint64_t count, uint64_t offset,
                  bool unmap, uint64_t *done, bool *changed);

/* For commit: tables, and what they let go of. */
struct commit_source mapping_update_source (struct mapping_update *u);

#endif /* QCOW2_MAPPING_UPDATE_H */
