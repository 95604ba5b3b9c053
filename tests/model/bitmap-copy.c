/* qcow2ext: do the bitmaps of an image still tell the truth?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap-copy.h"
#include "image-maker.h"
#include "need.h"

struct bitmap_copy {
  unsigned flags;
  uint8_t *bits;                /* a byte for each granule */
};

static uint64_t
granules (const struct checker *c, unsigned i)
{
  return (c->size + c->bitmap[i].granule - 1) / c->bitmap[i].granule;
}

struct bitmap_copy *
copy_bitmaps (const struct checker *c)
{
  struct bitmap_copy *copy;

  if (c->bitmaps == 0)
    return NULL;
  copy = need (calloc (c->bitmaps, sizeof *copy));
  for (unsigned i = 0; i < c->bitmaps; i++) {
    copy[i].flags = c->bitmap[i].flags;
    copy[i].bits = need (malloc (granules (c, i)));
    memcpy (copy[i].bits, c->bitmap[i].bits, granules (c, i));
  }
  return copy;
}

void
free_bitmaps (struct bitmap_copy *copy, unsigned n)
{
  for (unsigned i = 0; copy && i < n; i++)
    free (copy[i].bits);
  free (copy);
}

bool
bitmaps_hold (const struct checker *c, const struct bitmap_copy *before,
              const uint8_t *fate, bool closed, char why[128])
{
  for (unsigned i = 0; before && i < MAKER_BITMAPS; i++) {
    const unsigned flags = c->bitmap[i].flags;
    const uint64_t sectors = c->bitmap[i].granule / MEMORY_SECTOR;

    if (c->bitmaps != MAKER_BITMAPS) {
      snprintf (why, 128, "there are %u bitmaps", c->bitmaps);
      return false;
    }
    if (before[i].flags != 2) {
      if (flags != before[i].flags
          || memcmp (c->bitmap[i].bits, before[i].bits, granules (c, i))) {
        snprintf (why, 128, "bitmap %u has changed", i);
        return false;
      }
      continue;
    }
    if (flags != 2 && (flags != 3 || closed)) {
      snprintf (why, 128, "bitmap %u has the flags %u", i, flags);
      return false;
    }
    for (uint64_t g = 0; flags == 2 && g < granules (c, i); g++) {
      uint8_t all = UNTOUCHED;

      for (uint64_t s = g * sectors; s < (g + 1) * sectors; s++)
        if (s < c->size / MEMORY_SECTOR && fate[s] > all)
          all = fate[s];
      if (c->bitmap[i].bits[g]
          ? all == UNTOUCHED && !before[i].bits[g]
          : all == CHANGED || before[i].bits[g]) {
        snprintf (why, 128, "bitmap %u says that granule %" PRIu64 " is %s",
                  i, g, c->bitmap[i].bits[g] ? "dirty" : "clean");
        return false;
      }
    }
  }
  return true;
}
