/* qcow2ext: takes host clusters, and gives them back.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "space/allocator.h"

/* Finds the first free cluster at or after the hint. */
static int
find_free (struct refcounts *rc, uint64_t *cluster)
{
  const uint64_t limit = file_end_limit (&rc->end);
  const unsigned block_bits = refcounts_block_bits (rc);
  const uint64_t mask = (UINT64_C (1) << block_bits) - 1;
  uint64_t c = rc->free_hint;

  while (c < limit) {
    struct refblock *b;
    int r = refcounts_get_block (rc, c >> block_bits, &b);

    if (r == 0 && b == NULL)
      r = refcounts_create_block (rc, c >> block_bits);
    if (r < 0)
      return r;
    if (b == NULL)
      continue;                 /* the new block has taken a cluster */
    for (; c < limit; c++) {
      if (refblock_get (rc, b, c & mask) == 0) {
        *cluster = c;
        return 0;
      }
      if ((c & mask) == mask) {
        c++;
        break;
      }
    }
    rc->free_hint = c;
    refcounts_trim_cache (rc);
  }
  return -ENOSPC;
}

int
allocator_take (struct refcounts *rc, uint64_t want, uint64_t *offset,
                uint64_t *got, bool *zero)
{
  const uint64_t mask = (UINT64_C (1) << refcounts_block_bits (rc)) - 1;
  const uint64_t limit = file_end_limit (&rc->end);
  struct refblock *b;
  uint64_t first = 0, n;
  int r;

  if (!health_ok (rc->health))
    return -EIO;
  if ((r = find_free (rc, &first)) < 0
      || (r = refcounts_get_block (rc, first >> refcounts_block_bits (rc),
                                   &b)) < 0)
    return r;

  /* A run ends at the latest with its block. */
  for (n = 0; n < want && first + n < limit; n++) {
    if (n > 0 && ((first + n) & mask) == 0)
      break;
    if (refblock_get (rc, b, (first + n) & mask) != 0)
      break;
    if ((r = refcounts_check_free (rc, first + n)) < 0)
      return r;
  }
  for (uint64_t i = 0; i < n; i++)
    refblock_set (rc, b, (first + i) & mask, 1);

  *zero = first >= rc->end.zero_from && rc->end.can_grow;
  rc->free_hint = first + n;
  file_end_extend (&rc->end, first + n);
  *offset = first << rc->end.cluster_bits;
  *got = n;
  return 0;
}

static int
take_or_wait (struct refcounts *rc, uint64_t want, uint64_t *offset,
              uint64_t *got, bool *zero)
{
  int r;

  while ((r = allocator_take (rc, want, offset, got, zero)) == -EAGAIN)
    refcounts_wait_made (rc);
  return r;
}

int
allocator_alloc (struct refcounts *rc, uint64_t want, uint64_t *offset,
                 uint64_t *got, bool *zero)
{
  bool ahead;
  int r;

  {
    LOCK_FOR_SCOPE (&rc->lock);
    r = take_or_wait (rc, want, offset, got, zero);
    ahead = r == 0 && refcounts_begin_ahead (rc);
  }
  if (ahead)
    refcounts_make_ahead (rc);
  return r;
}

/* A table's cluster is written at once, so that its space is there when a
 * commit has to write the table: a full disk must fail the request that needs
 * the table, not all commits from then on.
 */
int
allocator_alloc_table (struct refcounts *rc, const void *content,
                       uint64_t *offset)
{
  const size_t size = refcounts_cluster_size (rc);
  CLEANUP_FREE void *zeros = content ? NULL : calloc (1, size);
  uint64_t got;
  bool zero;
  int r;

  if (content == NULL && zeros == NULL)
    return -ENOMEM;
  {
    LOCK_FOR_SCOPE (&rc->lock);
    if ((r = take_or_wait (rc, 1, offset, &got, &zero)) < 0)
      return r;
    r = metadata_map_add (rc->metadata, *offset >> rc->end.cluster_bits);
    if (r < 0) {
      refcounts_drop (rc, *offset, size);
      return r;
    }
  }
  r = store_pwrite (rc->file, content ? content : zeros, size, *offset);
  if (r < 0)
    allocator_give_back_table (rc, *offset);
  return r;
}

void
allocator_give_back (struct refcounts *rc, uint64_t offset, uint64_t clusters)
{
  LOCK_FOR_SCOPE (&rc->lock);
  if (health_ok (rc->health))
    refcounts_drop (rc, offset, clusters << rc->end.cluster_bits);
}

void
allocator_give_back_table (struct refcounts *rc, uint64_t offset)
{
  LOCK_FOR_SCOPE (&rc->lock);
  metadata_map_remove (rc->metadata, offset >> rc->end.cluster_bits);
  if (health_ok (rc->health))
    refcounts_drop (rc, offset, refcounts_cluster_size (rc));
}

bool
allocator_look_again (struct refcounts *rc)
{
  uint64_t size;

  if (rc->end.can_grow || rc->metadata->first_lost != UINT64_MAX
      || store_refresh_size (rc->file, &size) < 0)
    return false;
  LOCK_FOR_SCOPE (&rc->lock);
  return file_end_enlarged (&rc->end, size);
}

int
allocator_last_free (struct refcounts *rc, uint64_t *offset)
{
  LOCK_FOR_SCOPE (&rc->lock);
  for (uint64_t c = file_end_limit (&rc->end); c-- > 0;) {
    uint64_t count;
    int r = refcounts_get (rc, c, &count);

    if (r < 0)
      return r;
    *offset = c << rc->end.cluster_bits;
    if (count == 0 && !metadata_map_overlaps (rc->metadata, *offset, 1))
      return 0;
    refcounts_trim_cache (rc);
  }
  return -ENOSPC;
}

/* What was written last need not fill its cluster.  The file is made to, for a
 * layer below that serves whole blocks only would cut it off the next time.
 */
int
allocator_trim_tail (struct refcounts *rc)
{
  const unsigned bits = rc->end.cluster_bits;
  uint64_t end, size, wanted, count;
  int r;

  LOCK_FOR_SCOPE (&rc->lock);
  /* Blocks that are being made lie past what is in use so far. */
  if (!rc->end.can_grow || !health_ok (rc->health) || rc->making.count)
    return 0;
  for (end = rc->end.used_end; end > rc->end.initial_clusters; end--) {
    if ((r = refcounts_get (rc, end - 1, &count)) < 0)
      return r;
    if (count)
      break;
  }
  wanted = end << bits;
  /* The last cluster was perhaps cut short by the end of the file. */
  if (end == rc->end.initial_clusters && rc->end.initial_bytes < wanted) {
    if ((r = refcounts_get (rc, end - 1, &count)) < 0)
      return r;
    if (count == 0)
      wanted = rc->end.initial_bytes;
  }

  if ((r = store_get_size (rc->file, &size)) < 0)
    return r;
  /* Nothing of this session is there: somebody else has written to the file,
   * without locks.
   */
  if (size > rc->end.used_end << bits) {
    report_error ("%s: another program has added to the image while it was "
                  "written to here; what it has added is not cut off, but the "
                  "image may be damaged: see what qemu-img check says",
                  rc->file->name);
    return 0;
  }
  if (size != wanted && (r = store_resize (rc->file, wanted)) < 0)
    return r;
  if (end < rc->end.used_end)
    file_end_cut (&rc->end, end);
  return 0;
}
