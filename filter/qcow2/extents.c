/* qcow2ext: which parts of the guest's disk are data, which are zeros.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The answers are QEMU's: what has a zero flag, and what no layer holds, is a
 * hole that reads as zeros.  Beyond that, where a layer keeps its data in a
 * file of its own (an external data file, a raw backing file), the holes of
 * that file count too: metadata that was preallocated says nothing.
 */

#include "build-config.h"

#include "image.h"
#include "mapping.h"

/* Moves the extents of a data file to where the guest sees them. */
struct shifted {
  extent_fn fn;
  void *opaque;
  uint64_t delta;               /* guest offset - host offset, modulo 2^64 */
};

static int
shift_extent (void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
  struct shifted *s = opaque;

  return s->fn (s->opaque, offset + s->delta, length, type);
}

static int
data_extents (struct image *image, const struct run *run, uint64_t offset,
              extent_fn fn, void *opaque)
{
  struct shifted s = {
    .fn = fn, .opaque = opaque, .delta = offset - run->host
  };

  if (image->format == IMAGE_QCOW2 && !image->external)
    return fn (opaque, offset, run->length, EXTENT_DATA);
  return store_extents (image->data, run->length, run->host,
                        shift_extent, &s);
}

static int
backing_extents (struct image *image, uint64_t count, uint64_t offset,
                 extent_fn fn, void *opaque)
{
  struct image *backing = image->backing;
  uint64_t n = 0;
  int r;

  if (backing && offset < backing->size) {
    n = backing->size - offset;
    if (n > count)
      n = count;
    r = image_extents (backing, n, offset, fn, opaque);
    if (r != 0 || n == count)
      return r;
  }
  return fn (opaque, offset + n, count - n, EXTENT_HOLE | EXTENT_ZERO);
}

int
image_extents (struct image *image, uint64_t count, uint64_t offset,
               extent_fn fn, void *opaque)
{
  while (count > 0) {
    struct run run;
    int r = 0;

    mapping_lookup (image, offset, count, &run);
    switch (run.type) {
    case RUN_UNALLOCATED:
      r = backing_extents (image, run.length, offset, fn, opaque);
      break;
    case RUN_ZERO:
      r = fn (opaque, offset, run.length, EXTENT_HOLE | EXTENT_ZERO);
      break;
    case RUN_DATA:
      r = data_extents (image, &run, offset, fn, opaque);
      break;
    case RUN_COMPRESSED:
    case RUN_INVALID:
      r = fn (opaque, offset, run.length, EXTENT_DATA);
      break;
    }
    if (r != 0)
      return r;

    offset += run.length;
    count -= run.length;
  }
  return 0;
}
