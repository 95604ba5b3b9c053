/* qcow2ext: the part of a data file that is known to be empty.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "data-hole.h"
#include "mutant.h"

bool
data_hole_covers (const struct data_hole *h, uint64_t start, uint64_t end)
{
  return h->start <= start && end <= h->end && start < end;
}

void
data_hole_found (struct data_hole *h, uint64_t start, uint64_t end,
                 uint64_t forgotten)
{
  if (h->forgotten != forgotten && !MUTANT (hole_found_late))
    return;
  if (start > h->end || end < h->start || h->start == h->end) {
    h->start = start;
    h->end = end;
    return;
  }
  /* One follows the other.  So holes add up, although each ends where a
   * cluster was written to: that is mapped.
   */
  if (start < h->start)
    h->start = start;
  if (end > h->end)
    h->end = end;
}

void
data_hole_forget (struct data_hole *h)
{
  h->start = h->end = 0;
  h->forgotten++;
}
