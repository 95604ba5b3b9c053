/* qcow2ext: the parts of a data file that are known to be empty.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "data/data-holes.h"
#include "base/mutant.h"

bool
data_holes_cover (const struct data_holes *h, uint64_t start, uint64_t end)
{
  for (unsigned i = 0; i < DATA_HOLES; i++)
    if (h->range[i].start <= start && end <= h->range[i].end)
      return true;
  return false;
}

void
data_holes_found (struct data_holes *h, uint64_t start, uint64_t end,
                  uint64_t forgotten)
{
  unsigned smallest = 0;

  if (h->forgotten != forgotten && !MUTANT (hole_found_late))
    return;
  /* Those that it touches become one with it.  So holes add up, although each
   * ends where a cluster was written to: that is mapped.
   */
  for (unsigned i = 0; i < DATA_HOLES; i++) {
    if (start <= h->range[i].end && h->range[i].start <= end) {
      if (h->range[i].start < h->range[i].end) {
        start = start < h->range[i].start ? start : h->range[i].start;
        end = end > h->range[i].end ? end : h->range[i].end;
      }
      h->range[i].start = h->range[i].end = 0;
    }
    if (h->range[i].end - h->range[i].start
        < h->range[smallest].end - h->range[smallest].start)
      smallest = i;
  }
  h->range[smallest].start = start;
  h->range[smallest].end = end;
}

void
data_holes_forget (struct data_holes *h)
{
  for (unsigned i = 0; i < DATA_HOLES; i++)
    h->range[i].start = h->range[i].end = 0;
  h->forgotten++;
}
