/* qcow2ext: a larger refcount table.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * It is linked on the spot, each level durable before what refers to it:
 *
 *   blocks and table written, flush, header patched, flush, old table freed
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "space/refcounts.h"

/* A larger table.  It and the blocks that are new with it lie in an area that
 * begins where the reach of the old table ends, and that they count
 * themselves.
 */
struct growth {
  uint64_t start;               /* of the area, in clusters */
  uint64_t blocks, table_clusters;
  uint64_t entries;             /* of the new table */
  be64 *table;
  struct refblock **slots;
};

/* Clusters of the area. */
static uint64_t
area (const struct growth *g)
{
  return g->blocks + g->table_clusters;
}

static uint64_t
table_offset (const struct refcounts *rc, const struct growth *g)
{
  return (g->start + g->blocks) << rc->end.cluster_bits;
}

/* Chooses sizes, with room to grow by half, so that the table has an entry for
 * block "needed".
 */
static int
choose_sizes (struct refcounts *rc, uint64_t needed, struct growth *g)
{
  const unsigned bits = rc->end.cluster_bits;
  int r;

  g->start = rc->entries << refcounts_block_bits (rc);
  g->entries = needed + 1;
  g->entries += g->entries / 2;
  for (g->blocks = 1;; g->blocks++) {
    if (g->entries < rc->entries + g->blocks)
      g->entries = rc->entries + g->blocks;
    g->table_clusters =
      (g->entries * sizeof (be64) + refcounts_cluster_size (rc) - 1) >> bits;
    if (area (g) <= g->blocks << refcounts_block_bits (rc))
      break;
  }
  g->entries = (g->table_clusters << bits) / sizeof (be64);
  if (g->table_clusters << bits > QCOW2_MAX_REFTABLE_BYTES
      || g->start + area (g) > file_end_limit (&rc->end))
    return -ENOSPC;
  for (uint64_t c = g->start; c < g->start + area (g); c++)
    if ((r = refcounts_check_free (rc, c)) < 0)
      return r;
  return 0;
}

/* Makes the table and the blocks in memory, which count the area. */
static int
build (struct refcounts *rc, struct growth *g)
{
  const uint64_t per_block = UINT64_C (1) << refcounts_block_bits (rc);

  g->table = calloc (g->entries, sizeof *g->table);
  g->slots = calloc (g->entries, sizeof *g->slots);
  if (g->table == NULL || g->slots == NULL)
    return -ENOMEM;
  memcpy (g->table, rc->table, rc->entries * sizeof *g->table);
  memcpy (g->slots, rc->block, rc->entries * sizeof *g->slots);
  for (uint64_t i = 0; i < g->blocks; i++) {
    struct refblock *b =
      refblock_new (rc, rc->entries + i,
                    (g->start + i) << rc->end.cluster_bits);

    if (b == NULL)
      return -ENOMEM;
    g->slots[rc->entries + i] = b;
    g->table[rc->entries + i] = be64_make (b->host);
    for (uint64_t j = 0; j < per_block && i * per_block + j < area (g); j++)
      refblock_put (rc, b, j, 1);
  }
  return 0;
}

/* Writes all that is new, and then makes the header refer to it. */
static int
write_and_link (struct refcounts *rc, const struct growth *g)
{
  struct {
    be64 offset;
    be32 clusters;
  } __attribute__ ((packed)) patch = {
    be64_make (table_offset (rc, g)), be32_make (g->table_clusters)
  };
  int r;

  for (uint64_t i = 0; i < g->blocks; i++) {
    const struct refblock *b = g->slots[rc->entries + i];

    r = store_pwrite (rc->file, b->data, refcounts_cluster_size (rc), b->host);
    if (r < 0)
      return r;
  }
  r = store_pwrite (rc->file, g->table,
                    g->table_clusters << rc->end.cluster_bits,
                    table_offset (rc, g));
  if (r < 0
      || (r = health_flush (rc->health, rc->file, FLUSH_GROWTH)) < 0)
    return r;

  return health_patch_header (rc->health,
                              offsetof (struct qcow2_header,
                                        refcount_table_offset),
                              &patch, sizeof patch);
}

/* From here on nothing fails: the new table is the table.  Takes what the
 * growth holds, and leaves it the old table.
 */
static int
switch_tables (struct refcounts *rc, struct growth *g)
{
  const unsigned bits = rc->end.cluster_bits;
  const uint64_t old_offset = rc->offset, old_clusters = rc->clusters;
  be64 *old = rc->table;

  file_end_extend (&rc->end, g->start + area (g));
  for (uint64_t c = 0; c < old_clusters; c++)
    metadata_map_remove (rc->metadata, (old_offset >> bits) + c);
  free (rc->block);
  rc->block = g->slots;
  for (uint64_t i = 0; i < g->blocks; i++) {
    struct refblock *b = g->slots[rc->entries + i];

    refcounts_insert_block (rc, b);
    refblock_mark_dirty (rc, b);
  }
  rc->table = g->table;
  rc->entries = g->entries;
  rc->offset = rc->header->reftable_offset = table_offset (rc, g);
  rc->clusters = rc->header->reftable_clusters = g->table_clusters;
  g->table = old;
  g->slots = NULL;
  for (uint64_t c = 0; c < area (g); c++)
    if (metadata_map_add (rc->metadata, g->start + c) < 0)
      return health_fail (rc->health, "out of memory");
  return refcounts_drop (rc, old_offset, old_clusters << bits);
}

int
refcounts_grow_table (struct refcounts *rc, uint64_t needed)
{
  struct growth g = { 0 };
  int r;

  if ((r = choose_sizes (rc, needed, &g)) == 0
      && (r = build (rc, &g)) == 0
      && (r = write_and_link (rc, &g)) == 0)
    r = switch_tables (rc, &g);
  for (uint64_t i = 0; g.slots && i < g.blocks; i++)
    free (g.slots[rc->entries + i]);
  free (g.slots);
  free (g.table);
  return r;
}
