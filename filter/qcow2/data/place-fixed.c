/* qcow2ext: guest clusters in a data file, at the guest's offsets.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "base/mutant.h"
#include "data/place.h"

static void
begin (struct place *place, struct placement *p, uint64_t start, uint64_t end)
{
  p->known_hole = known_holes_cover (&place->holes, start, end,
                                     &p->generation);
}

static int
find (struct place *place, struct placement *p, uint64_t want, uint64_t entry,
      uint64_t bitmap)
{
  (void) entry;
  p->host = p->cluster;
  p->clusters = want;
  /* What may be left of old in a new cluster must not show where the file is
   * the disk.
   */
  p->needs_whole = place->is_disk && (uint32_t) bitmap == 0
    && !MUTANT (raw_first_touch);
  return 0;
}

static void
look (struct place *place, struct placement *p, uint64_t start, uint64_t end)
{
  unsigned type;

  p->reads_as_zeros = p->known_hole;
  if (p->known_hole)
    return;
  if (store_extent (place->layer->clusters, start, &p->hole_end, &type) < 0
      || type != (EXTENT_HOLE | EXTENT_ZERO)) {
    p->hole_end = 0;
    return;
  }
  p->hole_start = start;
  p->reads_as_zeros = p->hole_end - start >= end - start;
}

/* A write that failed may have left some of its bytes in a file that is the
 * disk, where the guest still sees zeros: so should whoever reads the file.  If
 * this fails, too, there is nothing left to try.
 */
static void
end_write (struct place *place, struct placement *p, int error,
           uint64_t start, uint64_t end)
{
  if (error && place->is_disk && start < end && !MUTANT (no_restore))
    store_zero (place->layer->clusters, end - start, start, STORE_ZERO_PUNCH);
  if (error)
    known_holes_forget (&place->holes);
  else if (p->hole_end)
    known_holes_add (&place->holes, p->hole_start, p->hole_end,
                     p->generation);
}

static void
released (struct place *place, uint64_t count, uint64_t offset, bool unmap)
{
  if (!MUTANT (hole_after_zero))
    known_holes_forget (&place->holes);
  /* The guest does not see any more what is there. */
  if (unmap)
    store_discard (place->layer->data_file, count, offset);
}

const struct place_ops place_fixed_ops = {
  .begin = begin, .find = find, .look = look, .end = end_write,
  .released = released,
};

/* Data files end where the disk does; so that nothing but zeros is behind it,
 * those that are encrypted end with a cluster, if they can.
 */
static uint64_t
end_of_data (const struct layer *layer)
{
  uint64_t size;

  if (!layer->geo.has_data_file)
    return UINT64_MAX;
  if (!layer->clusters->encrypted)
    return layer->size;
  if (!layer->clusters->fixed_size
      || store_get_size (layer->clusters, &size) < 0)
    return UINT64_MAX;
  return size;
}

void
place_init (struct place *place, struct layer *layer,
            struct mapping_update *update)
{
  *place = (struct place) {
    .ops = layer->geo.has_data_file ? &place_fixed_ops : &place_alloc_ops,
    .layer = layer, .update = update,
    .fixed = layer->geo.has_data_file, .is_disk = layer->geo.data_file_raw,
    .end = end_of_data (layer),
  };
  known_holes_init (&place->holes);
}

void
place_destroy (struct place *place)
{
  known_holes_destroy (&place->holes);
}
