/* qcow2ext: guest clusters in the image file, beside the metadata.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "data/place.h"
#include "map/mapping.h"
#include "space/allocator.h"

static bool
has_place (const struct layer *layer, uint64_t entry)
{
  return l2_entry_writable_in_place (&layer->geo, layer_file_size (layer),
                                     entry);
}

static void
begin (struct place *place, struct placement *p, uint64_t start, uint64_t end)
{
  (void) place, (void) p, (void) start, (void) end;
}

/* The first cluster has a place: how many clusters follow each other there? */
static int
find_in_place (struct place *place, struct placement *p, uint64_t want,
               uint64_t entry)
{
  struct layer *layer = place->layer;
  struct mapping_entry e;
  int r;

  p->host = entry & QCOW2_L2_OFFSET;
  for (p->clusters = 1; p->clusters < want; p->clusters++) {
    const uint64_t skip = p->clusters << layer->geo.cluster_bits;

    if ((r = mapping_get_entry (layer, p->cluster + skip, &e)) < 0)
      return r;
    if (!has_place (layer, e.entry)
        || (e.entry & QCOW2_L2_OFFSET) != p->host + skip)
      break;
  }
  return mapping_check_target (place->update, p->host,
                               p->clusters << layer->geo.cluster_bits);
}

/* How many clusters need a new place?  They get one, or a part of them. */
static int
find_new (struct place *place, struct placement *p, uint64_t want,
          uint64_t entry)
{
  struct layer *layer = place->layer;
  struct mapping_entry e;
  uint64_t n;
  int r;

  if ((r = mapping_check_used (place->update, entry)) < 0)
    return r;
  for (n = 1; n < want; n++) {
    const uint64_t skip = n << layer->geo.cluster_bits;

    if ((r = mapping_get_entry (layer, p->cluster + skip, &e)) < 0)
      return r;
    if (has_place (layer, e.entry))
      break;
    if ((r = mapping_check_used (place->update, e.entry)) < 0)
      return r;
  }
  r = allocator_alloc (place->update->counts, n, &p->host, &p->clusters,
                       &p->reads_as_zeros);
  p->reads_as_zeros &= !layer->clusters->encrypted;
  p->is_new = r == 0;
  return r;
}

static int
find (struct place *place, struct placement *p, uint64_t want, uint64_t entry,
      uint64_t bitmap)
{
  (void) bitmap;
  /* The rest of a shared cluster has to move as well. */
  p->needs_whole = (entry & QCOW2_L2_OFFSET) && !(entry & QCOW2_COPIED);
  if (has_place (place->layer, entry))
    return find_in_place (place, p, want, entry);
  return find_new (place, p, want, entry);
}

static void
look (struct place *place, struct placement *p, uint64_t start, uint64_t end)
{
  (void) place, (void) p, (void) start, (void) end;
}

static void
end_write (struct place *place, struct placement *p, int error,
           uint64_t start, uint64_t end)
{
  (void) start, (void) end;
  if (error && p->is_new)
    allocator_give_back (place->update->counts, p->host, p->clusters);
}

/* What was let go of is the deferred frees'. */
static void
released (struct place *place, uint64_t count, uint64_t offset, bool unmap)
{
  (void) place, (void) count, (void) offset, (void) unmap;
}

const struct place_ops place_alloc_ops = {
  .begin = begin, .find = find, .look = look, .end = end_write,
  .released = released,
};
