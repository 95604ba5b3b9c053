/* qcow2ext: writes a guest range.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A cluster that is allocated and not shared (copied flag; any allocated
 * cluster of a data file) is overwritten in place.  This takes no lock and
 * changes no metadata.
 */

#include "build-config.h"

#include "data/cow.h"
#include "data/write-range.h"
#include "map/mapping.h"

int
write_range (struct writer *w, const uint8_t *data, uint64_t count,
             uint64_t offset)
{
  struct layer *layer = w->layer;

  while (count > 0) {
    const uint64_t generation = w->place.holes.generation;
    struct run run;
    uint64_t done;
    int r = 0;

    mapping_lookup (layer, offset, count, &run);
    if (run.type == RUN_INVALID)
      return mapping_report (layer, offset, &run);
    if (run.type == RUN_DATA && run.copied) {
      done = run.length;
      if (!w->place.fixed)
        r = mapping_check_target (&w->update, run.host, run.length);
      if (r == 0)
        r = store_pwrite (layer->clusters, data, run.length, run.host);
      if (w->place.fixed)
        known_holes_after_write (&w->place.holes, generation);
    }
    else
      r = cow_write (w, data, run.length, offset, &done);
    if (r < 0)
      return r;

    data += done;
    offset += done;
    count -= done;
  }
  return 0;
}
