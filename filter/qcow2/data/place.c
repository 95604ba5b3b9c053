/* qcow2ext: where the guest's clusters lie.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "data/place.h"

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
