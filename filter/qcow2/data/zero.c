/* qcow2ext: zeroing and trimming a guest range.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Where the format has a flag for it, entries are changed and no data is
 * written; where a data file is the disk, the file is.  What is left, parts of
 * subclusters mostly, is written as zeros.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "data/extents.h"
#include "data/write-range.h"
#include "data/zero.h"
#include "map/mapping.h"

static unsigned
store_flags (const struct zero_request *z)
{
  return (z->unmap ? STORE_ZERO_PUNCH : 0) | (z->fast ? STORE_ZERO_FAST : 0);
}

/* Zeroes a range where it lies. */
static int
zero_in_place (const struct zero_request *z, uint64_t count, uint64_t host)
{
  struct store *store = z->w->layer->clusters;
  int r;

  if (z->trim) {
    r = store_discard (store, count, host);
    return r == -ENOTSUP ? 0 : r;
  }
  return store_zero (store, count, host, store_flags (z));
}

/* Zeroes a range by writing. */
static int
zero_by_writing (const struct zero_request *z, uint64_t count, uint64_t offset)
{
  const uint64_t chunk = min64 (count, UINT64_C (2) << 20);
  CLEANUP_FREE uint8_t *zeros = NULL;
  int r;

  if (z->trim)
    return 0;
  if (z->fast)
    return -ENOTSUP;
  zeros = calloc (1, chunk);
  if (zeros == NULL)
    return -ENOMEM;
  for (uint64_t n; count > 0; count -= n, offset += n) {
    n = min64 (count, chunk);
    if ((r = write_range (z->w, zeros, n, offset)) < 0)
      return r;
  }
  return 0;
}

/* Zeroes whole subclusters (the last one may be cut short by the disk's end) of
 * one L2 table by changing entries.  *done is how much was dealt with; 0: the
 * first cluster needs writing.
 */
static int
zero_entries (const struct zero_request *z, uint64_t count, uint64_t offset,
              uint64_t *done)
{
  struct writer *w = z->w;
  const uint64_t size = layer_cluster_size (w->layer);
  bool changed, unmap;
  int r;

  *done = 0;
  r = mapping_own_table (&w->update, layer_l1_index (w->layer, offset));
  if (r < 0)
    return r;
  r = mapping_zero (&w->update, count, offset, z->unmap, done, &changed);
  if (!changed)
    return r;
  in_place_zeroed (&w->in_place, round_down (offset, size),
                   round_up (offset + *done, size));
  /* A hole of an encrypted data file does not read as zeros: a request that
   * looked the place up before would decrypt nothing, and after a power cut the
   * old entries may lead there again.  So its space is kept.
   */
  unmap = r == 0 && z->unmap
    && !(w->place.fixed && w->layer->clusters->encrypted);
  w->place.ops->released (&w->place, *done, offset, unmap);
  return r;
}

static int
stop_at_data (void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
  (void) opaque, (void) offset, (void) length;
  return !(type & EXTENT_ZERO);
}

static bool
reads_as_zeros (struct layer *layer, uint64_t start, uint64_t end)
{
  return layer_extents (layer, end - start, start, stop_at_data, NULL) == 0;
}

/* Zeroes a part of an unallocated subcluster by changing its entry, if the rest
 * of it reads as zeros in the layers below: their tables say so, or the holes
 * of their files.  *done: as zero_entries.
 */
static int
zero_around (const struct zero_request *z, uint64_t count, uint64_t offset,
             uint64_t *done)
{
  struct layer *layer = z->w->layer;
  const uint64_t subcluster = layer_subcluster_size (layer);
  const uint64_t start = round_down (offset, subcluster);
  const uint64_t end = min64 (start + subcluster, layer->size);

  *done = 0;
  if (z->trim || !reads_as_zeros (layer, start, offset)
      || !reads_as_zeros (layer, offset + count, end))
    return 0;
  return zero_entries (z, end - start, start, done);
}

/* Zeroes a range in a data file that is the disk.  Where nothing is mapped, the
 * file may hold anything, so that the whole of each subcluster is zeroed.
 */
static int
zero_disk (const struct zero_request *z, const struct run *run, uint64_t offset)
{
  struct layer *layer = z->w->layer;
  uint64_t from = offset, to = offset + run->length;

  if (run->type != RUN_DATA) {
    from = round_down (from, layer_subcluster_size (layer));
    to = min64 (round_up (to, layer_subcluster_size (layer)), layer->size);
  }
  return zero_in_place (z, to - from, from);
}

/* Zeroes the first part of a run, under the range lock.  *done is how much. */
static int
zero_run (const struct zero_request *z, const struct run *run, uint64_t offset,
          uint64_t *done)
{
  struct layer *layer = z->w->layer;
  const uint64_t subcluster = layer_subcluster_size (layer);
  const uint64_t end = offset + run->length;
  const uint64_t whole_end =
    end == layer->size ? end : round_down (end, subcluster);
  const uint64_t next = round_up (offset + 1, subcluster);
  int r;

  if (run->type == RUN_INVALID)
    return mapping_report (layer, offset, run);

  *done = run->length;
  if (z->w->place.is_disk)
    return zero_disk (z, run, offset);
  if (run->type == RUN_UNALLOCATED && layer_nothing_below (layer, offset))
    return 0;

  if (offset % subcluster == 0 && whole_end > offset) {
    r = zero_entries (z, whole_end - offset, offset, done);
    if (r < 0 || *done)
      return r;
    *done = min64 (layer_cluster_size (layer), whole_end - offset);
    return 1;                   /* by writing */
  }

  /* Part of a subcluster. */
  *done = min64 (end, next) - offset;
  if (run->type == RUN_UNALLOCATED) {
    uint64_t zeroed;

    r = zero_around (z, *done, offset, &zeroed);
    return r < 0 || zeroed ? r : 1;
  }
  if (run->type == RUN_ZERO)
    return 0;
  if (run->type == RUN_DATA && run->copied) {
    if (!z->w->place.fixed
        && (r = mapping_check_target (&z->w->update, run->host, *done)) < 0)
      return r;
    return zero_in_place (z, *done, run->host);
  }
  return 1;
}

int
zero_range (const struct zero_request *z, uint64_t count, uint64_t offset)
{
  struct writer *w = z->w;
  struct layer *layer = w->layer;
  const uint64_t size = layer_cluster_size (layer);

  while (count > 0) {
    const uint64_t table_end =
      round_up (offset + 1, size << layer->geo.l2_bits);
    const struct epoch_ticket ticket = epochs_enter (&w->changes);
    uint64_t n = min64 (count, table_end - offset), done = 0;
    struct range_lock lock;
    struct run run;
    int r;

    range_lock_take (&w->ranges, &lock, round_down (offset, size),
                     round_up (offset + n, size));

    /* The request that held this range has ended: look only now. */
    mapping_lookup (layer, offset, n, &run);
    r = zero_run (z, &run, offset, &done);
    range_lock_drop (&w->ranges, &lock);
    epochs_leave (&w->changes, ticket);

    if (r == 1)
      r = zero_by_writing (z, done, offset);
    if (r < 0)
      return r;
    offset += done;
    count -= done;
  }
  return 0;
}

int
zero_check_fast (const struct zero_request *z, uint64_t count, uint64_t offset)
{
  struct layer *layer = z->w->layer;
  const uint64_t subcluster = layer_subcluster_size (layer);

  for (struct run run; count > 0; offset += run.length, count -= run.length) {
    const uint64_t end = offset + count;
    const bool partial =
      offset % subcluster
      || (end % subcluster && end != layer->size);

    mapping_lookup (layer, offset, count, &run);
    if (run.type == RUN_INVALID)
      return mapping_report (layer, offset, &run);
    if (z->w->place.is_disk || run.type == RUN_ZERO
        || (run.type == RUN_UNALLOCATED && layer_nothing_below (layer, offset)))
      continue;
    /* What has no flag for it, and parts of what is not ours alone. */
    if ((layer->header.version < 3 && !layer_nothing_below (layer, offset))
        || (partial && !(run.type == RUN_DATA && run.copied
                         && !layer->clusters->encrypted)))
      return -ENOTSUP;
    if (layer->geo.extended_l2 && run.type == RUN_COMPRESSED
        && run.length < layer_cluster_size (layer))
      return -ENOTSUP;
  }
  return 0;
}
