/* qcow2ext: the parts of a data file that are known to be empty.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "base/cleanup.h"
#include "data/known-holes.h"

void
known_holes_init (struct known_holes *h)
{
  *h = (struct known_holes) { .generation = 0 };
  pthread_mutex_init (&h->lock, NULL);
}

void
known_holes_destroy (struct known_holes *h)
{
  pthread_mutex_destroy (&h->lock);
}

bool
known_holes_cover (struct known_holes *h, uint64_t start, uint64_t end,
                   uint64_t *generation)
{
  LOCK_FOR_SCOPE (&h->lock);
  *generation = h->generation;
  for (unsigned i = 0; i < KNOWN_HOLES; i++)
    if (h->range[i].start <= start && end <= h->range[i].end)
      return true;
  return false;
}

void
known_holes_add (struct known_holes *h, uint64_t start, uint64_t end,
                 uint64_t generation)
{
  unsigned smallest = 0;

  LOCK_FOR_SCOPE (&h->lock);
  if (h->generation != generation)
    return;
  /* Those that it touches become one with it.  So holes add up, although each
   * ends where a cluster was written to: that is mapped.
   */
  for (unsigned i = 0; i < KNOWN_HOLES; i++) {
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
known_holes_forget (struct known_holes *h)
{
  LOCK_FOR_SCOPE (&h->lock);
  for (unsigned i = 0; i < KNOWN_HOLES; i++)
    h->range[i].start = h->range[i].end = 0;
  h->generation++;
}
