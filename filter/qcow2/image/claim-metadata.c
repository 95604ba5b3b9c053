/* qcow2ext: fills the map of metadata clusters.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "disk/snapshot.h"
#include "image/bitmap.h"
#include "image/claim-metadata.h"

/* Puts the clusters of a table into the map; they must not be in it. */
static int
claim (struct writer *w, uint64_t offset, uint64_t bytes)
{
  const int r = metadata_map_claim (&w->metadata, offset, bytes);

  return r == -EUCLEAN
    ? health_mark_corrupt (&w->health, "two metadata structures overlap") : r;
}

static int
claim_bitmap_range (void *opaque, const char *what, uint64_t offset,
                    uint64_t length)
{
  (void) what;
  return claim (opaque, offset, length);
}

/* The L1 table of a snapshot. */
static int
claim_snapshot (struct writer *w, const struct snapshot *s)
{
  const uint64_t bytes = (uint64_t) s->l1_entries * sizeof (be64);
  const uint64_t size = layer_file_size (w->layer);

  if (bytes > QCOW2_MAX_L1_BYTES || s->l1_offset > size
      || bytes > size - s->l1_offset
      || s->l1_offset & (layer_cluster_size (w->layer) - 1))
    return health_mark_corrupt (&w->health, "the L1 table of a snapshot is misplaced");
  return claim (w, s->l1_offset, bytes);
}

/* Calls fn for the cluster of each L2 table of a snapshot. */
static int
walk_snapshot_tables (struct writer *w, const struct snapshot *s,
                      int (*fn) (struct writer *w, uint64_t cluster))
{
  const size_t bytes = s->l1_entries * sizeof (be64);
  CLEANUP_FREE be64 *l1 = NULL;
  int r;

  l1 = malloc (bytes + 1);
  if (l1 == NULL)
    return -ENOMEM;
  r = store_pread (w->layer->file, l1, bytes, s->l1_offset);
  for (uint32_t i = 0; r == 0 && i < s->l1_entries; i++) {
    const uint64_t host = be64_get (l1[i]) & QCOW2_L1_OFFSET;

    if (host)
      r = fn (w, host >> w->layer->geo.cluster_bits);
  }
  return r;
}

/* While the map has no L2 tables yet. */
static int
check_snapshot_table (struct writer *w, uint64_t cluster)
{
  if (metadata_map_overlaps (&w->metadata,
                             cluster << w->layer->geo.cluster_bits, 1))
    return health_mark_corrupt (&w->health, "two metadata structures overlap");
  return 0;
}

static int
add_snapshot_table (struct writer *w, uint64_t cluster)
{
  return metadata_map_add_snapshot_table (&w->metadata, cluster);
}

int
claim_metadata (struct writer *w)
{
  const struct layer *layer = w->layer;
  const struct header *h = &layer->header;
  const uint64_t size = layer_cluster_size (w->layer);
  const struct snapshot_list *list = layer->snapshots;
  int r;

  if ((r = claim (w, 0, size)) < 0
      || (r = claim (w, h->l1_offset, h->l1_entries * sizeof (be64))) < 0
      || (r = claim (w, h->reftable_offset,
                     (uint64_t) h->reftable_clusters * size)) < 0)
    return r;
  if (list) {
    if ((r = claim (w, h->snapshots_offset, list->bytes)) < 0)
      return r;
    for (size_t i = 0; i < list->count; i++)
      if ((r = claim_snapshot (w, &list->snapshot[i])) < 0)
        return r;
  }
  for (uint64_t i = 0; i < w->counts.entries; i++) {
    const uint64_t host = be64_get (w->counts.table[i]) & QCOW2_REFTABLE_OFFSET;

    if (host && (r = claim (w, host, size)) < 0)
      return r;
  }
  if ((r = bitmap_walk_ranges (w->layer, claim_bitmap_range, w)) < 0)
    return r;
  for (size_t i = 0; list && i < list->count; i++)
    if ((r = walk_snapshot_tables (w, &list->snapshot[i],
                                   check_snapshot_table)) < 0)
      return r;
  for (uint32_t i = 0; i < layer->l1_entries; i++) {
    const uint64_t host = layer_l2_offset (layer, i);

    if (host && (r = claim (w, host, size)) < 0)
      return r;
  }
  for (size_t i = 0; list && i < list->count; i++)
    if ((r = walk_snapshot_tables (w, &list->snapshot[i],
                                   add_snapshot_table)) < 0)
      return r;
  return 0;
}
