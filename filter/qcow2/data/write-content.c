/* qcow2ext: writes data as what it is.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A request is cut into units: subclusters, or clusters if these are
 * compressed.  Runs of units that hold only zeros become a request to zero
 * them, runs of others are written, compressed perhaps.  Parts of units, at
 * the ends, are written as they are.
 */

#include "build-config.h"

#include "base/bits.h"
#include "base/is-zero.h"
#include "data/compressed-write.h"
#include "data/write-content.h"
#include "data/write-range.h"
#include "data/zero.h"

struct content {
  struct writer *w;
  const uint8_t *data;
  uint64_t start, end;          /* guest range, bytes */
  uint64_t unit;                /* bytes */
};

/* Is the unit at offset all zeros, and is there a flag for that? */
static bool
is_zero_unit (const struct content *c, uint64_t offset)
{
  const struct layer *layer = c->w->layer;

  return (layer->geo.version >= 3 || layer_nothing_below (layer, offset))
    && is_zero (c->data + (offset - c->start),
                min64 (c->unit, c->end - offset));
}

/* Writes whole units that hold no zeros, or only zeros. */
static int
write_run (const struct content *c, uint64_t offset, uint64_t end,
           bool zeros)
{
  struct writer *w = c->w;
  const uint8_t *data = c->data + (offset - c->start);
  const struct zero_request z = {
    .w = w, .unmap = w->options.detect_zeroes == DETECT_UNMAP,
  };

  if (zeros)
    return zero_range (&z, end - offset, offset);
  if (w->encoder)
    return compressed_write (w, data, end - offset, offset);
  return write_range (w, data, end - offset, offset);
}

/* Writes whole units. */
static int
write_units (const struct content *c, uint64_t offset, uint64_t end)
{
  int r = 0;

  while (r == 0 && offset < end) {
    const bool zeros = is_zero_unit (c, offset);
    uint64_t next = min64 (offset + c->unit, end);

    while (next < end && is_zero_unit (c, next) == zeros)
      next = min64 (next + c->unit, end);
    r = write_run (c, offset, next, zeros);
    offset = next;
  }
  return r;
}

/* Writes a guest range whose zeros are to be found, or which is to be
 * compressed.
 */
static int
write_in_units (struct writer *w, const uint8_t *data, uint64_t count,
                uint64_t offset)
{
  const struct layer *layer = w->layer;
  const uint64_t unit = w->encoder ? layer_cluster_size (layer)
                                   : layer_subcluster_size (layer);
  const struct content c = {
    .w = w, .data = data, .start = offset, .end = offset + count, .unit = unit,
  };
  const uint64_t first = round_up (offset, unit);
  /* The last unit of the disk may be cut short. */
  const uint64_t last =
    c.end == layer->size ? c.end : round_down (c.end, unit);
  int r = 0;

  if (first >= last)
    return write_range (w, data, count, offset);
  if (offset < first)
    r = write_range (w, data, first - offset, offset);
  if (r == 0)
    r = write_units (&c, first, last);
  if (r == 0 && last < c.end)
    r = write_range (w, data + (last - offset), c.end - last, last);
  return r;
}

int
write_content (struct writer *w, const uint8_t *data, uint64_t count,
               uint64_t offset)
{
  if (w->encoder == NULL && w->options.detect_zeroes == DETECT_OFF)
    return write_range (w, data, count, offset);
  return write_in_units (w, data, count, offset);
}
