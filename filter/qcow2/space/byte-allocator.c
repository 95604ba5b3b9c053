/* qcow2ext: takes parts of host clusters, for compressed data.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "space/allocator.h"
#include "space/byte-allocator.h"

static uint64_t
max_count (const struct refcounts *rc)
{
  const unsigned order = rc->header->refcount_order;

  return order == 6 ? UINT64_MAX : (UINT64_C (1) << (1 << order)) - 1;
}

/* Adds a reference to a cluster in use. */
static int
raise (struct refcounts *rc, uint64_t cluster)
{
  const unsigned bits = refcounts_block_bits (rc);
  const uint64_t index = cluster & ((UINT64_C (1) << bits) - 1);
  struct refblock *b;
  const int r = refcounts_get_block (rc, cluster >> bits, &b);

  if (r < 0)
    return r;
  if (b == NULL || refblock_get (rc, b, index) == 0)
    return health_mark_corrupt (rc->health,
                                "a cluster in use has a refcount of 0");
  refblock_set (rc, b, index, refblock_get (rc, b, index) + 1);
  return 0;
}

/* Puts a piece at offset, where the cursor is, and moves the cursor. */
static void
put (struct refcounts *rc, struct packed *piece, uint64_t offset)
{
  const uint64_t end = offset + piece->size;

  piece->host = offset;
  rc->cursor = end & (refcounts_cluster_size (rc) - 1) ? end : 0;
}

/* Puts a piece into a cluster of its own. */
static int
begin_cluster (struct refcounts *rc, struct packed *piece)
{
  uint64_t host, got;
  bool zero;
  const int r = allocator_take (rc, 1, &host, &got, &zero);

  if (r == 0)
    put (rc, piece, host);
  return r;
}

/* Puts a piece behind what the cursor's cluster holds, and the rest of the
 * piece into the next cluster, if that is the first one that is free.
 */
static int
span_clusters (struct refcounts *rc, struct packed *piece, uint64_t at)
{
  const unsigned bits = rc->end.cluster_bits;
  const uint64_t cluster = at >> bits;
  uint64_t host, got;
  bool zero;
  int r = allocator_take (rc, 1, &host, &got, &zero);

  if (r < 0)
    return r;
  if (host >> bits != cluster + 1) {
    put (rc, piece, host);
    return 0;
  }
  if ((r = raise (rc, cluster)) < 0) {
    refcounts_drop (rc, host, 1);
    return r;
  }
  put (rc, piece, at);
  return 0;
}

/* first: the piece begins a request of its own. */
static int
place_piece (struct refcounts *rc, struct packed *piece, bool first)
{
  const unsigned bits = rc->end.cluster_bits;
  const uint64_t cluster = rc->cursor >> bits;
  const uint64_t end = (cluster + 1) << bits;
  const uint64_t at = first ? round_up (rc->cursor, QCOW2_SECTOR_SIZE)
                            : rc->cursor;
  uint64_t count;
  int r;

  if (rc->cursor == 0 || at == end)
    return begin_cluster (rc, piece);
  if ((r = refcounts_get (rc, cluster, &count)) < 0)
    return r;
  if (count >= max_count (rc))
    return begin_cluster (rc, piece);
  if (at + piece->size > end)
    return span_clusters (rc, piece, at);
  if ((r = raise (rc, cluster)) == 0)
    put (rc, piece, at);
  return r;
}

int
byte_allocator_alloc (struct refcounts *rc, struct packed *piece,
                      size_t count, size_t *got)
{
  bool ahead, first = true;
  int r;

  *got = 0;
  {
    LOCK_FOR_SCOPE (&rc->lock);
    r = health_ok (rc->health) ? 0 : -EIO;
    while (r == 0 && *got < count) {
      while ((r = place_piece (rc, &piece[*got], first)) == -EAGAIN) {
        refcounts_wait_made (rc);
        first = true;           /* the cursor may be another request's now */
      }
      *got += r == 0;
      first = false;
    }
    ahead = *got && refcounts_begin_ahead (rc);
  }
  if (ahead)
    refcounts_make_ahead (rc);
  return *got ? 0 : r;
}

void
byte_allocator_give_back (struct refcounts *rc, const struct packed *piece,
                          size_t count)
{
  LOCK_FOR_SCOPE (&rc->lock);
  for (size_t i = 0; i < count && health_ok (rc->health); i++)
    refcounts_drop (rc, piece[i].host, piece[i].size);
}
