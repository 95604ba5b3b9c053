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

/* Writes what can be written in place of the first run; *done is how much, 0:
 * it has to be copied.  run is what was found.
 */
static int
write_in_place (struct writer *w, const uint8_t *data, uint64_t count,
                uint64_t offset, struct run *run, uint64_t *done)
{
  struct layer *layer = w->layer;
  const uint64_t generation = w->place.holes.generation;
  int r = 0;

  *done = 0;
  mapping_lookup (layer, offset, count, run);
  if (run->type == RUN_INVALID)
    return mapping_report (layer, offset, run);
  if (run->type != RUN_DATA || !run->copied)
    return 0;

  *done = run->length;
  if (!w->place.fixed)
    r = mapping_check_target (&w->update, run->host, run->length);
  if (r == 0)
    r = store_pwrite (layer->clusters, data, run->length, run->host);
  if (w->place.fixed)
    known_holes_after_write (&w->place.holes, generation);
  return r;
}

int
write_range (struct writer *w, const uint8_t *data, uint64_t count,
             uint64_t offset)
{
  while (count > 0) {
    const struct epoch_ticket ticket = in_place_enter (&w->in_place);
    struct run run;
    uint64_t done;
    int r = write_in_place (w, data, count, offset, &run, &done);

    in_place_leave (&w->in_place, ticket);
    if (r == 0 && done == 0)
      r = cow_write (w, data, run.length, offset, &done);
    if (r < 0)
      return r;

    data += done;
    offset += done;
    count -= done;
  }
  return 0;
}
