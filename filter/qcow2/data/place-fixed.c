/* qcow2ext: guest clusters in a data file, at the guest's offsets.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

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
  p->needs_whole = place->is_disk && (uint32_t) bitmap == 0;
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
  if (error && place->is_disk && start < end)
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
  known_holes_forget (&place->holes);
  /* The guest does not see any more what is there. */
  if (unmap)
    store_discard (place->layer->data_file, count, offset);
}

const struct place_ops place_fixed_ops = {
  .begin = begin, .find = find, .look = look, .end = end_write,
  .released = released,
};
