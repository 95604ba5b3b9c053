/* qcow2ext: writes clusters compressed.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A batch of clusters at a time:
 *
 *   1. compress all of them, with no lock, on as many processors as are free
 *   2. those that became no smaller are written as they are (write-range.c)
 *   3. of the others, clusters of one L2 table that follow each other: lock
 *      the guest range; find room; write, with as few requests as there are
 *      gaps; publish the entries, and let go of what they referred to
 *
 * As with a copying write (cow.c), the guest sees the old state until the
 * entries are published, and the room is given back if anything fails before.
 * Nothing of the old state is needed: all of each cluster is written.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "base/crew.h"
#include "data/compressed-write.h"
#include "data/encoder.h"
#include "data/write-range.h"
#include "map/mapping.h"

/* Guest data in a batch, but for large clusters: so many that there is
 * something to share.
 */
#define BATCH_BYTES (UINT64_C (1) << 20)
#define BATCH_CLUSTERS 4

/* Guest data that a thread takes from a batch at a time. */
#define PART_BYTES (UINT64_C (64) << 10)

struct batch_write {
  struct writer *w;
  struct layer *layer;
  uint64_t size;                /* of a cluster, bytes */
  const uint8_t *data;          /* of the first cluster */
  uint64_t count, offset;       /* guest range, bytes */
  size_t clusters;
  size_t clusters_in_part;
  size_t room;                  /* for the result of each, bytes */
  uint8_t *result;
  struct packed *packed;        /* size 0: not worth it */
};

/* --- step 1 --- */

static int
compress_cluster (const struct batch_write *b, size_t i)
{
  const uint64_t start = i * b->size;
  const uint64_t n = min64 (b->size, b->count - start);
  CLEANUP_FREE uint8_t *whole = NULL;
  const uint8_t *cluster = b->data + start;
  ssize_t r;

  if (n < b->size) {            /* behind the disk's end, zeros */
    whole = calloc (1, b->size);
    if (whole == NULL)
      return -ENOMEM;
    cluster = memcpy (whole, cluster, n);
  }
  r = encoder_run (b->w->encoder, cluster, b->result + i * b->room);
  if (r >= 0)
    b->packed[i].size = r;
  return r < 0 ? r : 0;
}

static int
compress_part (void *opaque, size_t part)
{
  const struct batch_write *b = opaque;
  const size_t first = part * b->clusters_in_part;
  const size_t end = min64 (first + b->clusters_in_part, b->clusters);
  int r = 0;

  for (size_t i = first; r == 0 && i < end; i++)
    r = compress_cluster (b, i);
  return r;
}

static int
compress (struct batch_write *b)
{
  b->clusters_in_part = b->size < PART_BYTES ? PART_BYTES / b->size : 1;
  return crew_run (b->layer->crew,
                   (b->clusters + b->clusters_in_part - 1)
                   / b->clusters_in_part, compress_part, b);
}

/* --- step 3 --- */

/* Writes pieces that have got room, one request for those that follow each
 * other.  The last sector of a request is filled with zeros.
 */
static int
write_pieces (const struct batch_write *b, size_t first, size_t count)
{
  const struct packed *p = b->packed + first;
  CLEANUP_FREE uint8_t *buf = malloc (count * b->room + QCOW2_SECTOR_SIZE);
  size_t i = 0;

  if (buf == NULL)
    return -ENOMEM;
  while (i < count) {
    const uint64_t host = p[i].host;
    size_t n = 0, padded;
    int r;

    do {
      memcpy (buf + n, b->result + (first + i) * b->room, p[i].size);
      n += p[i].size;
      i++;
    } while (i < count && p[i].host == host + n);
    padded = round_up (n, QCOW2_SECTOR_SIZE);
    memset (buf + n, 0, padded - n);
    if ((r = store_pwrite (b->layer->file, buf, padded, host)) < 0)
      return r;
  }
  return 0;
}

static int
publish_pieces (const struct batch_write *b, size_t first, size_t count)
{
  const uint64_t start = b->offset + first * b->size;
  const struct publication p = {
    .cluster = start, .clusters = count, .packed = b->packed + first,
    .start = start, .end = start + count * b->size,
    .whole = true, .is_new = true,
  };

  return mapping_publish (&b->w->update, &p);
}

/* Is what the tables say of the clusters sound, so that they may let go of
 * it?
 */
static int
check_entries (const struct batch_write *b, size_t first, size_t count)
{
  for (size_t i = first; i < first + count; i++) {
    struct mapping_entry e;
    int r = mapping_get_entry (b->layer, b->offset + i * b->size, &e);

    if (r == 0)
      r = mapping_check_used (&b->w->update, e.entry);
    if (r < 0)
      return r;
  }
  return 0;
}

/* An entry has less room for the offset of compressed data than for that of
 * a cluster.
 */
static bool
are_too_far (const struct batch_write *b, size_t first, size_t count)
{
  for (size_t i = first; i < first + count; i++)
    if (b->packed[i].host + b->packed[i].size
        > l2_entry_compressed_limit (&b->layer->geo))
      return true;
  return false;
}

/* Under the range lock.  *done is how many were written; -EFBIG: they have to
 * be written as they are.
 */
static int
write_locked (const struct batch_write *b, size_t first, size_t count,
              size_t *done)
{
  struct writer *w = b->w;
  int r;

  *done = 0;
  if ((r = mapping_own_table (&w->update,
                              layer_l1_index (b->layer, b->offset
                                              + first * b->size))) < 0
      || (r = check_entries (b, first, count)) < 0
      || (r = byte_allocator_alloc (&w->counts, b->packed + first, count,
                                    done)) < 0)
    return r;
  if (are_too_far (b, first, *done))
    r = -EFBIG;
  if (r == 0)
    r = write_pieces (b, first, *done);
  if (r == 0)
    r = publish_pieces (b, first, *done);
  if (r < 0)
    byte_allocator_give_back (&w->counts, b->packed + first, *done);
  return r;
}

/* Writes clusters that were compressed. */
static int
write_packed (const struct batch_write *b, size_t first, size_t count)
{
  struct writer *w = b->w;

  while (count > 0) {
    const uint64_t start = b->offset + first * b->size;
    const struct epoch_ticket ticket = epochs_enter (&w->changes);
    struct range_lock lock;
    size_t done;
    int r;

    range_lock_take (&w->ranges, &lock, start, start + count * b->size);
    r = write_locked (b, first, count, &done);
    range_lock_drop (&w->ranges, &lock);
    epochs_leave (&w->changes, ticket);
    if (r < 0)
      return r;
    first += done;
    count -= done;
  }
  return 0;
}

/* Writes clusters as they are. */
static int
write_plain (const struct batch_write *b, size_t first, size_t count)
{
  const uint64_t start = first * b->size;

  return write_range (b->w, b->data + start,
                      min64 (count * b->size, b->count - start),
                      b->offset + start);
}

/* --- all steps --- */

static int
write_batch (struct batch_write *b)
{
  int r = compress (b);

  for (size_t i = 0, n; r == 0 && i < b->clusters; i += n) {
    const bool packed = b->packed[i].size != 0;

    for (n = 1; i + n < b->clusters; n++)
      if ((b->packed[i + n].size != 0) != packed)
        break;
    r = packed ? write_packed (b, i, n) : -EFBIG;
    if (r == -EFBIG)
      r = write_plain (b, i, n);
  }
  return r;
}

int
compressed_write (struct writer *w, const uint8_t *data, uint64_t count,
                  uint64_t offset)
{
  struct layer *layer = w->layer;
  const uint64_t size = layer_cluster_size (layer);
  const uint64_t max = max64 (BATCH_BYTES, BATCH_CLUSTERS * size);
  const size_t room = encoder_room (w->encoder);
  const size_t clusters = (min64 (count, max) + size - 1) / size;
  CLEANUP_FREE uint8_t *result = malloc (clusters * room);
  CLEANUP_FREE struct packed *packed = malloc (clusters * sizeof *packed);

  if (result == NULL || packed == NULL)
    return -ENOMEM;
  while (count > 0) {
    const uint64_t left = layer_left_in_table (layer, offset);
    const uint64_t n = min64 (min64 (count, max), left);
    struct batch_write b = {
      .w = w, .layer = layer, .size = size, .data = data, .count = n,
      .offset = offset, .clusters = (n + size - 1) / size, .room = room,
      .result = result, .packed = packed,
    };
    const int r = write_batch (&b);

    if (r < 0)
      return r;
    data += n;
    offset += n;
    count -= n;
  }
  return 0;
}
