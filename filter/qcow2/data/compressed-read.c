/* qcow2ext: reads clusters that are compressed.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A batch of clusters at a time:
 *
 *   1. look up the clusters; those in the cache of decoded clusters need no
 *      input
 *   2. read the input of the others: one request to the store for clusters that
 *      lie side by side in the image file, or nearly
 *   3. decode, on as many processors as are free, each cluster into the guest's
 *      buffer or through the cache
 *
 * So it takes one round trip to a store that is far away, not one for each
 * cluster.  A read that fails in step 2 fails nothing: the clusters concerned
 * are then read one by one, and one that cannot be read says so.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "base/crew.h"
#include "data/compressed-read.h"
#include "data/decoded-cache.h"

/* Guest data in a batch; of large clusters it is so many that there is
 * something to share, and of small ones no more.
 */
#define BATCH_BYTES (UINT64_C (2) << 20)
#define BATCH_CLUSTERS_MIN 4
#define BATCH_CLUSTERS_MAX 128

/* So many bytes between two clusters are rather read than skipped. */
#define GAP_NEAR (UINT64_C (4) << 10)
#define GAP_FAR (UINT64_C (128) << 10)

/* Guest data that a thread takes from a batch at a time. */
#define PART_BYTES (UINT64_C (64) << 10)

struct piece {
  struct run run;
  uint64_t offset;              /* of the guest, bytes */
  uint8_t *buf;
  struct compressed_input input;
};

/* Input that one request to the store brings. */
struct side_by_side {
  uint64_t start, end;          /* host range, bytes */
  size_t first, count;          /* of the order */
};

struct batch_read {
  struct layer *layer;
  size_t pieces, pieces_in_part;
  size_t groups;
  uint8_t *input;               /* of the groups, in a row */
  bool ahead;
  uint8_t order[BATCH_CLUSTERS_MAX]; /* of pieces that need input */
  struct piece piece[BATCH_CLUSTERS_MAX];
  struct side_by_side group[BATCH_CLUSTERS_MAX];
};
static_assert (BATCH_CLUSTERS_MAX <= UINT8_MAX + 1, "order has bytes");

/* --- step 1 --- */

/* Returns how many bytes of the guest the batch has. */
static size_t
gather (struct batch_read *b, uint64_t offset, size_t count,
        const struct run *first, uint8_t *buf)
{
  const uint64_t size = layer_cluster_size (b->layer);
  const size_t limit = min64 (max64 (BATCH_BYTES / size, BATCH_CLUSTERS_MIN),
                              BATCH_CLUSTERS_MAX);
  struct run run = *first;
  size_t n = 0;

  while (run.type == RUN_COMPRESSED) {
    b->piece[b->pieces++] = (struct piece) {
      .run = run, .offset = offset + n, .buf = buf + n,
    };
    n += run.length;
    if (n == count || b->pieces == limit)
      break;
    mapping_lookup (b->layer, offset + n, count - n, &run);
  }
  return n;
}

/* --- step 2 --- */

/* Sorts by where the input is, which is mostly the case already. */
static size_t
order_input (struct batch_read *b)
{
  size_t n = 0;

  for (size_t i = 0; i < b->pieces; i++) {
    const uint64_t host = b->piece[i].run.host;
    size_t k = n;

    if (decoded_cache_has (b->layer, &b->piece[i].run))
      continue;
    for (; k > 0 && b->piece[b->order[k - 1]].run.host > host; k--)
      b->order[k] = b->order[k - 1];
    b->order[k] = i;
    n++;
  }
  return n;
}

/* Returns how many bytes all groups have. */
static size_t
make_groups (struct batch_read *b, size_t n)
{
  const uint64_t gap = b->layer->file->far ? GAP_FAR : GAP_NEAR;
  struct side_by_side *g = NULL;
  size_t total = 0;

  for (size_t i = 0; i < n; i++) {
    struct piece *p = &b->piece[b->order[i]];
    const struct run *run = &p->run;
    uint64_t end;

    p->input = compressed_input_of (b->layer, run, NULL);
    end = run->host + p->input.size;

    if (g && run->host <= g->end + gap) {
      g->end = max64 (g->end, end);
      g->count++;
      continue;
    }
    if (g)
      total += g->end - g->start;
    g = &b->group[b->groups++];
    *g = (struct side_by_side) { run->host, end, i, 1 };
  }
  return g ? total + (g->end - g->start) : 0;
}

static int
read_group (void *opaque, size_t index)
{
  struct batch_read *b = opaque;
  const struct side_by_side *g = &b->group[index];
  uint8_t *input = b->input;

  for (size_t i = 0; i < index; i++)
    input += b->group[i].end - b->group[i].start;
  if (store_pread (b->layer->file, input, g->end - g->start, g->start) < 0)
    return 0;
  for (size_t i = g->first; i < g->first + g->count; i++) {
    struct piece *p = &b->piece[b->order[i]];

    p->input.data = input + (p->run.host - g->start);
  }
  return 0;
}

/* Without memory for it, there is no input.  Clusters that lie apart in a file
 * that is near are read by those who decode them.
 */
static void
read_input (struct batch_read *b)
{
  const bool far = b->layer->file->far;
  const size_t total = make_groups (b, order_input (b));

  if (b->groups == b->pieces && !far)
    return;
  b->input = total ? malloc (total) : NULL;
  if (b->input)
    crew_run (far ? b->layer->waiters : NULL, b->groups, read_group, b);
}

/* --- step 3 --- */

static int
decode_part (void *opaque, size_t part)
{
  struct batch_read *b = opaque;
  const size_t first = part * b->pieces_in_part;
  const size_t end = min64 (first + b->pieces_in_part, b->pieces);
  int r = 0;

  for (size_t i = first; r == 0 && i < end; i++) {
    const struct piece *p = &b->piece[i];
    bool ahead;

    r = decoded_cache_read (b->layer, p->offset, &p->run, p->input, p->buf,
                            &ahead);
    if (i == b->pieces - 1)
      b->ahead = ahead;
  }
  return r;
}

/* --- all steps --- */

int
compressed_read (struct layer *layer, uint64_t offset, size_t count,
                 const struct run *first, uint8_t *buf, size_t *done,
                 bool *ahead)
{
  static const struct compressed_input no_input = { NULL, 0 };
  const uint64_t size = layer_cluster_size (layer);
  struct batch_read *b;
  int r;

  /* One piece of one cluster, as small requests are. */
  *done = first->length;
  if (first->length == count)
    return decoded_cache_read (layer, offset, first, no_input, buf, ahead);

  b = malloc (sizeof *b);
  if (b == NULL)
    return -ENOMEM;
  b->layer = layer;
  b->pieces = b->groups = 0;
  b->input = NULL;
  b->ahead = false;
  *done = gather (b, offset, count, first, buf);
  read_input (b);
  b->pieces_in_part = size < PART_BYTES ? PART_BYTES / size : 1;
  r = crew_run (layer->crew,
                (b->pieces + b->pieces_in_part - 1) / b->pieces_in_part,
                decode_part, b);
  *ahead = b->ahead;
  free (b->input);
  free (b);
  return r;
}
