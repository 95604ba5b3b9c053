/* qcow2ext: which parts of the guest's disk are data, which are zeros.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The answers are QEMU's: what has a zero flag, and what no layer holds, is a
 * hole that reads as zeros.  Beyond that, where a layer keeps its data in a
 * file of its own (an external data file, a raw backing file), the holes of
 * that file count too: metadata that was preallocated says nothing.
 */

#include "build-config.h"

#include "data/extents.h"
#include "map/mapping.h"

/* A short run, and how many of them one request asks for. */
#define SHORT_RUN (UINT64_C (1) << 20)
#define SHORT_RUNS 64

/* What a data file said last.  An answer often covers many runs, and costs
 * the file system a walk.  A chain can have two such files in turn.
 */
struct answer {
  const struct store *store;    /* NULL: none yet */
  uint64_t start, end;          /* host offsets, bytes */
  unsigned type;
};

/* One request. */
struct walk {
  extent_fn fn;
  void *opaque;
  struct answer answer[2];
  unsigned oldest;              /* of the answers */
  unsigned short_runs;          /* so far */
};

static const struct answer *
ask (struct walk *walk, struct store *store, uint64_t host, bool is_short)
{
  static const struct answer unasked = {
    .end = UINT64_MAX, .type = EXTENT_DATA
  };
  struct answer *a;

  for (unsigned i = 0; i < 2; i++) {
    a = &walk->answer[i];
    if (a->store == store && host >= a->start && host < a->end)
      return a;
  }
  if (is_short && walk->short_runs++ >= SHORT_RUNS)
    return &unasked;
  a = &walk->answer[walk->oldest];
  walk->oldest ^= 1;
  a->store = store;
  a->start = host;
  if (store_extent (store, host, &a->end, &a->type) < 0) {
    a->end = UINT64_MAX;
    a->type = EXTENT_DATA;
  }
  return a;
}

static int
walk_data (struct walk *walk, struct layer *layer, const struct run *run,
           uint64_t offset)
{
  uint64_t host = run->host, left = run->length;

  if (layer->format == IMAGE_QCOW2 && !layer->geo.has_data_file)
    return walk->fn (walk->opaque, offset, run->length, EXTENT_DATA);

  while (left > 0) {
    const struct answer *a =
      ask (walk, layer->clusters, host, run->length < SHORT_RUN);
    const uint64_t n = a->end - host < left ? a->end - host : left;
    const int r = walk->fn (walk->opaque, offset, n, a->type);

    if (r != 0)
      return r;
    offset += n;
    host += n;
    left -= n;
  }
  return 0;
}

static int walk_range (struct walk *walk, struct layer *layer,
                       uint64_t count, uint64_t offset);

static int
walk_backing (struct walk *walk, struct layer *layer, uint64_t count,
              uint64_t offset)
{
  struct layer *backing = layer->backing;
  uint64_t n = 0;
  int r;

  if (backing && offset < backing->size) {
    n = backing->size - offset;
    if (n > count)
      n = count;
    r = walk_range (walk, backing, n, offset);
    if (r != 0 || n == count)
      return r;
  }
  return walk->fn (walk->opaque, offset + n, count - n,
                   EXTENT_HOLE | EXTENT_ZERO);
}

static int
walk_range (struct walk *walk, struct layer *layer, uint64_t count,
            uint64_t offset)
{
  while (count > 0) {
    struct run run;
    int r = 0;

    mapping_lookup (layer, offset, count, &run);
    switch (run.type) {
    case RUN_UNALLOCATED:
      r = walk_backing (walk, layer, run.length, offset);
      break;
    case RUN_ZERO:
      r = walk->fn (walk->opaque, offset, run.length,
                    EXTENT_HOLE | EXTENT_ZERO);
      break;
    case RUN_DATA:
      r = walk_data (walk, layer, &run, offset);
      break;
    case RUN_COMPRESSED:
    case RUN_INVALID:
      r = walk->fn (walk->opaque, offset, run.length, EXTENT_DATA);
      break;
    }
    if (r != 0)
      return r;

    offset += run.length;
    count -= run.length;
  }
  return 0;
}

int
layer_extents (struct layer *layer, uint64_t count, uint64_t offset,
               extent_fn fn, void *opaque)
{
  struct walk walk = { .fn = fn, .opaque = opaque };

  return walk_range (&walk, layer, count, offset);
}
