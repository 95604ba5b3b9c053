/* qcow2ext: new refcount blocks.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * They are linked on the spot, each level durable before what refers to it:
 *
 *   blocks written, flush, table entries written, flush
 *
 * Flushing can take seconds.  So blocks are made ahead of need: the request
 * that brings the allocator near the end of what is counted makes them, with
 * its own allocation done and the space lock given up:
 *
 *   nothing --begin: clusters claimed--> making --> linked, in memory
 *                                          |
 *                                          +--failed--> nothing, no more ahead
 *
 * Invariants, while blocks are being made: the table has no entry for them, so
 * nothing is allocated where they count; no other block is made and the table
 * does not grow, so that what needs that waits (-EAGAIN).
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "space/refcounts.h"

/* Of the file, what blocks that are made at once are to count, in bytes.  With
 * small clusters one counts so little that flushing for each would be most of
 * the work.
 */
#define TOGETHER (UINT64_C (256) << 20)

/* How near the end of what is counted has to be for more to be made, in bytes
 * of the file, and in parts of what is in use: a small file stays small.
 */
#define NEAR (UINT64_C (32) << 20)
#define NEAR_PART 8

/* Blocks in memory. */
struct new_blocks {
  struct new_range range;
  struct refblock *block[QCOW2_SECTOR_SIZE / sizeof (be64)];
};

/* How many blocks to make from number i on, which is not there: more, the
 * larger the file is already.  Their entries are within one sector of the
 * table.  Otherwise the others could be on disk after a power cut, and not that
 * of the first one, which counts them.
 */
static uint64_t
choose_count (const struct refcounts *rc, uint64_t i)
{
  const uint64_t per_sector = QCOW2_SECTOR_SIZE / sizeof (be64);
  const unsigned reach_bits = refcounts_block_bits (rc) + rc->end.cluster_bits;
  const uint64_t most =
    min64 (min64 (1 + i / 2, max64 (TOGETHER >> reach_bits, 1)),
           min64 (per_sector - i % per_sector, rc->entries - i));
  uint64_t n = 1;

  while (n < most && be64_get (rc->table[i + n]) == 0
         && (i + n) << refcounts_block_bits (rc) < file_end_limit (&rc->end)
         && n < UINT64_C (1) << (refcounts_block_bits (rc) - 1))
    n++;
  return n;
}

static int
build_blocks (const struct refcounts *rc, struct new_blocks *n)
{
  const struct new_range *range = &n->range;

  for (uint64_t i = 0; i < range->count; i++) {
    n->block[i] = refblock_new (rc, range->first + i,
                                (range->cluster + i) << rc->end.cluster_bits);
    if (n->block[i] == NULL)
      return -ENOMEM;
    refblock_put (rc, n->block[0], i, 1);
  }
  memset (n->block[0]->dirty, 0, sizeof n->block[0]->dirty);
  return 0;
}

/* Writes the blocks and then the table's entries for them. */
static int
write_blocks (struct refcounts *rc, const struct new_blocks *n)
{
  be64 entry[QCOW2_SECTOR_SIZE / sizeof (be64)];
  int r = 0;

  for (uint64_t i = 0; r == 0 && i < n->range.count; i++) {
    entry[i] = be64_make (n->block[i]->host);
    r = store_pwrite (rc->file, n->block[i]->data,
                      refcounts_cluster_size (rc), n->block[i]->host);
  }
  if (r < 0
      || (r = health_flush (rc->health, rc->file, FLUSH_GROWTH)) < 0)
    return r;
  r = store_pwrite (rc->file, entry, n->range.count * sizeof *entry,
                    rc->offset + n->range.first * sizeof *entry);
  if (r < 0
      || (r = health_flush (rc->health, rc->file, FLUSH_GROWTH)) < 0)
    /* The entries may be there or not: only a new look at the file tells. */
    health_fail (rc->health, "the refcount table could not be written");
  return r;
}

/* Chooses what to make from block number i on.  -ENOSPC: the file ends there. */
static int
choose (const struct refcounts *rc, uint64_t i, struct new_range *range)
{
  *range = (struct new_range) {
    .first = i, .cluster = i << refcounts_block_bits (rc)
  };
  if (range->cluster >= file_end_limit (&rc->end))
    return -ENOSPC;
  range->count = choose_count (rc, i);
  return 0;
}

/* Puts the clusters of new blocks into the metadata map: all of them or none. */
static int
claim (struct refcounts *rc, const struct new_range *range)
{
  for (uint64_t i = 0; i < range->count; i++) {
    const int r = metadata_map_add (rc->metadata, range->cluster + i);

    if (r < 0) {
      while (i-- > 0)
        metadata_map_remove (rc->metadata, range->cluster + i);
      return r;
    }
  }
  return 0;
}

/* Makes blocks, up to where the table on disk refers to them. */
static int
make (struct refcounts *rc, struct new_blocks *n)
{
  const int r = build_blocks (rc, n);

  return r == 0 ? write_blocks (rc, n) : r;
}

/* Takes blocks that were made into use; if that failed, lets go of them. */
static void
end (struct refcounts *rc, struct new_blocks *n, int r)
{
  const struct new_range *range = &n->range;

  for (uint64_t i = range->count; i-- > 0;)
    if (r == 0) {
      rc->table[range->first + i] = be64_make (n->block[i]->host);
      refcounts_insert_block (rc, n->block[i]);
    }
    else {
      free (n->block[i]);
      metadata_map_remove (rc->metadata, range->cluster + i);
    }
  /* Part of them may have been written even so. */
  file_end_include (&rc->end, range->cluster + range->count);
}

/* New blocks take the first of the clusters that block number i counts, all of
 * which are free.
 */
int
refcounts_create_block (struct refcounts *rc, uint64_t i)
{
  struct new_blocks n = { .block[0] = NULL };
  int r;

  if (rc->making.count)
    return -EAGAIN;
  if (i >= rc->entries)
    return refcounts_grow_table (rc, i); /* which also makes the block */
  if ((r = choose (rc, i, &n.range)) < 0)
    return r;
  for (uint64_t j = 0; j < n.range.count; j++)
    if ((r = refcounts_check_free (rc, n.range.cluster + j)) < 0)
      return r;
  if ((r = claim (rc, &n.range)) < 0)
    return r;
  r = make (rc, &n);
  end (rc, &n, r);
  return r;
}

/* The number of the first block from the free clusters on that is not there. */
static uint64_t
first_missing (struct refcounts *rc)
{
  rc->missing = max64 (rc->missing,
                       rc->free_hint >> refcounts_block_bits (rc));
  while (rc->missing < rc->entries
         && be64_get (rc->table[rc->missing]) != 0)
    rc->missing++;
  return rc->missing;
}

/* What is wrong there is for what needs the blocks to say. */
static bool
can_claim (struct refcounts *rc, const struct new_range *range)
{
  for (uint64_t i = 0; i < range->count; i++)
    if (refcounts_why_not_free (rc, range->cluster + i))
      return false;
  return claim (rc, range) == 0;
}

bool
refcounts_begin_ahead (struct refcounts *rc)
{
  const uint64_t near = min64 (NEAR >> rc->end.cluster_bits,
                               rc->end.used_end / NEAR_PART);
  const uint64_t i = first_missing (rc);

  if (rc->making.count || rc->ahead_failed || i >= rc->entries
      || rc->free_hint + near < i << refcounts_block_bits (rc))
    return false;
  if (choose (rc, i, &rc->making) == 0 && can_claim (rc, &rc->making))
    return true;
  rc->making.count = 0;
  rc->ahead_failed = true;
  return false;
}

void
refcounts_make_ahead (struct refcounts *rc)
{
  struct new_blocks n = { .range = rc->making };
  const int r = make (rc, &n);

  LOCK_FOR_SCOPE (&rc->lock);
  end (rc, &n, r);
  rc->making.count = 0;
  rc->ahead_failed = r < 0;
  pthread_cond_broadcast (&rc->made);
}

void
refcounts_wait_made (struct refcounts *rc)
{
  while (rc->making.count)
    pthread_cond_wait (&rc->made, &rc->lock);
}
