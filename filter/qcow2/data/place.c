/* qcow2ext: where the guest's clusters lie.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "data/place.h"

void
place_init (struct place *place, struct layer *layer,
            struct mapping_update *update)
{
  *place = (struct place) {
    .ops = layer->geo.has_data_file ? &place_fixed_ops : &place_alloc_ops,
    .layer = layer, .update = update,
    .fixed = layer->geo.has_data_file, .is_disk = layer->geo.data_file_raw,
  };
  known_holes_init (&place->holes);
}

void
place_destroy (struct place *place)
{
  known_holes_destroy (&place->holes);
}
