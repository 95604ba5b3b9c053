/* qcow2ext: writes that need a place, or take over what is there.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A run of clusters of one L2 table at a time:
 *
 *   1. lock the guest range against other such writes; wait for writes in
 *      place that began before it was zeroed; look at its state then
 *   2. find the clusters a place: the one they have, or a new one
 *   3. write guest data and, around it, the rest of each cluster (or
 *      subcluster) that is touched: what the guest saw there until now
 *   4. publish the entries in memory, and let go of what they referred to
 *
 * Until 4 the guest sees the old state, after 4 all of the new one; if
 * anything fails before, the new place is given back.  A commit makes it
 * durable.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "data/cow.h"
#include "data/read.h"
#include "map/mapping.h"

/* Up to this size, a write is put together in memory with what surrounds it,
 * to be one write.
 */
#define MERGE_MAX (UINT64_C (4) << 20)

struct cow_write {
  struct writer *w;
  struct layer *layer;
  struct placement place;
  uint64_t data_start, data_end; /* guest data, bytes */
  uint64_t fill_start, fill_end; /* with what surrounds it */
  bool fill_is_zero;            /* what surrounds it reads as zeros */
  bool copy_whole;              /* each cluster is written as a whole */
};

static uint64_t
host_of (const struct cow_write *c, uint64_t offset)
{
  return c->place.host + (offset - c->place.cluster);
}

/* What is written, with what surrounds it, now that the place is known. */
static void
set_bounds (struct cow_write *c, const struct run *run, uint64_t end)
{
  struct layer *layer = c->layer;
  const struct place *place = &c->w->place;
  const uint64_t size = layer_cluster_size (layer);
  const uint64_t unit = c->copy_whole ? size : layer_subcluster_size (layer);
  const uint64_t run_end =
    c->place.cluster + (c->place.clusters << layer->geo.cluster_bits);

  c->data_end = min64 (end, run_end);
  c->fill_start = round_down (c->data_start, unit);
  c->fill_end = round_up (c->data_end, unit);
  /* The guest cannot see behind its disk, but a guest whose disk is made
   * larger can.
   */
  c->fill_end = max64 (c->data_end, min64 (c->fill_end, place->end));

  c->fill_is_zero = !layer->geo.extended_l2 || !c->copy_whole
    || place->is_disk;
  c->fill_is_zero &= run->type == RUN_ZERO
    || (run->type == RUN_UNALLOCATED
        && layer_nothing_below (layer, c->fill_start));
}

/* Steps 1 (behind the lock) and 2: [data_start, end) is a run of one type. */
static int
prepare (struct cow_write *c, const struct run *run, uint64_t end)
{
  struct layer *layer = c->layer;
  struct place *place = &c->w->place;
  const uint64_t size = layer_cluster_size (layer);
  struct mapping_entry e;
  uint64_t want;
  int r;

  c->place.cluster = round_down (c->data_start, size);
  /* With extended L2, clusters of a run differ in what else they hold. */
  want = layer->geo.extended_l2
    ? 1 : (round_up (end, size) - c->place.cluster) >> layer->geo.cluster_bits;

  if ((r = mapping_own_table (&c->w->update,
                              layer_l1_index (layer, c->data_start))) < 0
      || (r = mapping_get_entry (layer, c->data_start, &e)) < 0
      || (r = place->ops->find (place, &c->place, want, e.entry, e.bitmap))
         < 0)
    return r;
  c->copy_whole = !layer->geo.extended_l2 || run->type == RUN_COMPRESSED
    || c->place.needs_whole;
  set_bounds (c, run, end);
  if (c->fill_is_zero
      && (c->fill_start != c->data_start || c->fill_end != c->data_end))
    place->ops->look (place, &c->place, c->fill_start, c->fill_end);
  return 0;
}

/* What the guest sees now of a range.  Behind its disk, zeros. */
static int
read_fill (const struct cow_write *c, uint8_t *buf, uint64_t start,
           uint64_t end)
{
  const uint64_t disk_end = min64 (end, c->layer->size);
  int r = 0;

  if (c->fill_is_zero || start >= disk_end) {
    memset (buf, 0, end - start);
    return 0;
  }
  r = layer_read (c->layer, buf, disk_end - start, start);
  memset (buf + (disk_end - start), 0, end - disk_end);
  return r;
}

static int
write_fill (const struct cow_write *c, uint64_t start, uint64_t end)
{
  CLEANUP_FREE uint8_t *buf = NULL;
  int r;

  if (start == end)
    return 0;
  if (c->fill_is_zero)
    return store_zero (c->layer->clusters, end - start, host_of (c, start),
                       STORE_ZERO_PUNCH);
  buf = malloc (end - start);
  if (buf == NULL)
    return -ENOMEM;
  r = read_fill (c, buf, start, end);
  return r < 0 ? r : store_pwrite (c->layer->clusters, buf, end - start,
                                   host_of (c, start));
}

static int
write_merged (const struct cow_write *c, const uint8_t *data, uint8_t *buf)
{
  const uint64_t before = c->data_start - c->fill_start;
  const uint64_t count = c->data_end - c->data_start;
  int r;

  if ((r = read_fill (c, buf, c->fill_start, c->data_start)) < 0
      || (r = read_fill (c, buf + before + count, c->data_end, c->fill_end))
         < 0)
    return r;
  memcpy (buf + before, data, count);
  return store_pwrite (c->layer->clusters, buf, c->fill_end - c->fill_start,
                       host_of (c, c->fill_start));
}

/* Step 3. */
static int
write_data (const struct cow_write *c, const uint8_t *data)
{
  const uint64_t count = c->data_end - c->data_start;
  CLEANUP_FREE uint8_t *merged = NULL;
  int r;

  if ((c->fill_start == c->data_start && c->fill_end == c->data_end)
      || (c->fill_is_zero && c->place.reads_as_zeros))
    return store_pwrite (c->layer->clusters, data, count,
                         host_of (c, c->data_start));

  if (c->fill_end - c->fill_start <= MERGE_MAX
      && (merged = malloc (c->fill_end - c->fill_start)) != NULL)
    return write_merged (c, data, merged);

  if ((r = write_fill (c, c->fill_start, c->data_start)) < 0
      || (r = write_fill (c, c->data_end, c->fill_end)) < 0)
    return r;
  return store_pwrite (c->layer->clusters, data, count,
                       host_of (c, c->data_start));
}

/* Step 4. */
static int
publish (const struct cow_write *c)
{
  const struct publication p = {
    .cluster = c->place.cluster, .clusters = c->place.clusters,
    .host = c->place.host, .start = c->fill_start, .end = c->fill_end,
    .whole = c->copy_whole, .is_new = c->place.is_new,
  };

  return mapping_publish (&c->w->update, &p);
}

/* All steps but the lock. */
static int
run_write (struct cow_write *c, const uint8_t *data, const struct run *run)
{
  int r = prepare (c, run, c->data_start + run->length);

  if (r == 0)
    r = write_data (c, data);
  if (r == 0)
    r = publish (c);
  return r;
}

int
cow_write (struct writer *w, const uint8_t *data, uint64_t count,
           uint64_t offset, uint64_t *done)
{
  struct layer *layer = w->layer;
  struct place *place = &w->place;
  const uint64_t size = layer_cluster_size (layer);
  const uint64_t table_end =
    round_up (offset + 1, size << layer->geo.l2_bits);
  const struct epoch_ticket ticket = epochs_enter (&w->changes);
  struct cow_write c = { .w = w, .layer = layer, .data_start = offset };
  struct range_lock lock;
  uint64_t start, end;
  struct run run;
  int r = 0;

  *done = 0;
  count = min64 (count, table_end - offset);
  start = round_down (offset, size);
  end = round_up (offset + count, size);

  range_lock_take (&w->ranges, &lock, start, end);
  in_place_wait (&w->in_place, start, end);
  place->ops->begin (place, &c.place, start, end);

  /* The request that held this range has ended: look only now. */
  mapping_lookup (layer, offset, count, &run);
  if (run.type == RUN_INVALID)
    r = mapping_report (layer, offset, &run);
  else if (run.type != RUN_DATA || !run.copied) {
    r = run_write (&c, data, &run);
    if (r == 0)
      *done = c.data_end - c.data_start;
  }
  place->ops->end (place, &c.place, r, c.fill_is_zero ? c.fill_start : 0,
                   c.fill_is_zero ? c.fill_end : 0);
  range_lock_drop (&w->ranges, &lock);
  epochs_leave (&w->changes, ticket);
  return r;
}
