/* qcow2ext: reading guest data.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * One look-up and one pread for each run, but for compressed ones, of which
 * many are read at once.  Unallocated runs go down the chain by recursion, which
 * is bounded by IMAGE_MAX_DEPTH.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "data/compressed-read.h"
#include "data/decoded-cache.h"
#include "data/read.h"
#include "data/writer.h"
#include "map/mapping.h"

/* Reads what this layer does not hold: from the backing file, or zeros where
 * there is none or it is shorter.
 */
static int
read_backing (struct layer *layer, uint8_t *buf, size_t count,
              uint64_t offset)
{
  struct layer *backing = layer->backing;
  size_t n = 0;
  int r;

  if (backing && offset < backing->size) {
    n = min64 (count, backing->size - offset);
    r = layer_read (backing, buf, n, offset);
    if (r < 0)
      return r;
  }
  memset (buf + n, 0, count - n);
  return 0;
}

/* Decodes the cluster after the one at offset, if it is compressed. */
static void
read_ahead (struct layer *layer, uint64_t offset)
{
  const uint64_t size = layer_cluster_size (layer);
  uint64_t budget = size;
  struct run run;

  offset = (offset & -size) + size;
  if (offset >= layer->size)
    return;
  mapping_lookup (layer, offset, min64 (size, layer->size - offset), &run);
  if (run.type == RUN_COMPRESSED)
    decoded_cache_prefetch (layer, &run, &budget);
}

static int
read_range (struct layer *layer, void *buf, size_t count, uint64_t offset)
{
  uint8_t *p = buf;

  while (count > 0) {
    struct run run;
    bool ahead = false;
    size_t n;
    int r = 0;

    mapping_lookup (layer, offset, count, &run);
    n = run.length;
    switch (run.type) {
    case RUN_UNALLOCATED:
      r = read_backing (layer, p, run.length, offset);
      break;
    case RUN_ZERO:
      memset (p, 0, run.length);
      break;
    case RUN_DATA:
      r = store_pread (layer->clusters, p, run.length, run.host);
      if (r < 0)
        report_limited (&layer->limit, "%s: reading at offset 0x%" PRIx64
                        " failed: %s", layer->clusters->name, run.host,
                        strerror (-r));
      break;
    case RUN_COMPRESSED:
      r = compressed_read (layer, offset, count, &run, p, &n, &ahead);
      break;
    case RUN_INVALID:
      r = mapping_report (layer, offset, &run);
      break;
    }
    if (r < 0)
      return r;
    if (ahead)
      read_ahead (layer, offset + n - 1);

    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

int
layer_read (struct layer *layer, void *buf, size_t count, uint64_t offset)
{
  struct writer *w = layer->writer;
  struct epoch_ticket ticket;
  int r;

  /* What we look up must neither be given to another guest cluster, nor, where
   * it is zeroed and keeps its place, be written to as a new one, before we
   * have read it.
   */
  if (w)
    ticket = in_place_enter (&w->in_place);
  r = read_range (layer, buf, count, offset);
  if (w)
    in_place_leave (&w->in_place, ticket);
  return r;
}

/* Returns false when enough has been decoded. */
static bool
cache_range (struct layer *layer, uint64_t count, uint64_t offset,
             uint64_t *budget)
{
  while (count > 0) {
    struct run run;

    mapping_lookup (layer, offset, count, &run);
    switch (run.type) {
    case RUN_UNALLOCATED:
      if (layer->backing && offset < layer->backing->size
          && !cache_range (layer->backing,
                           min64 (run.length, layer->backing->size - offset),
                           offset, budget))
        return false;
      break;
    case RUN_DATA:
      store_cache (layer->clusters, run.length, run.host);
      break;
    case RUN_COMPRESSED:
      if (!decoded_cache_prefetch (layer, &run, budget))
        return false;
      break;
    case RUN_ZERO:
    case RUN_INVALID:
      break;
    }
    offset += run.length;
    count -= run.length;
  }
  return true;
}

void
layer_cache (struct layer *layer, uint64_t count, uint64_t offset)
{
  struct writer *w = layer->writer;
  uint64_t budget = UINT64_MAX;
  struct epoch_ticket ticket;

  if (w)
    ticket = in_place_enter (&w->in_place);
  cache_range (layer, count, offset, &budget);
  if (w)
    in_place_leave (&w->in_place, ticket);
}
