/* qcow2ext: sectors that requests hold, first come, first served.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * All requests are in one list, whether they hold their range or still wait
 * for it.  One holds it when none in front of it in the list is in its way.
 * As many requests as nbdkit has threads: the list is short.
 */

#include "build-config.h"

#include <stddef.h>

#include "sector-lock.h"

void
sector_lock_init (struct sector_lock *l)
{
  pthread_mutex_init (&l->lock, NULL);
  pthread_cond_init (&l->dropped, NULL);
  l->first = NULL;
  l->last = &l->first;
  l->waiting = 0;
}

void
sector_lock_destroy (struct sector_lock *l)
{
  pthread_cond_destroy (&l->dropped);
  pthread_mutex_destroy (&l->lock);
}

static bool
must_wait (const struct sector_lock *l, const struct sector_range *range)
{
  for (const struct sector_range *r = l->first; r != range; r = r->next)
    if (r->start < range->end && range->start < r->end
        && (r->change || range->change))
      return true;
  return false;
}

void
sector_lock_take (struct sector_lock *l, struct sector_range *range,
                  uint64_t start, uint64_t end, bool change)
{
  pthread_mutex_lock (&l->lock);
  range->start = start;
  range->end = end;
  range->change = change;
  range->next = NULL;
  range->prev = l->last;
  *l->last = range;
  l->last = &range->next;
  while (must_wait (l, range)) {
    l->waiting++;
    pthread_cond_wait (&l->dropped, &l->lock);
    l->waiting--;
  }
  pthread_mutex_unlock (&l->lock);
}

void
sector_lock_drop (struct sector_lock *l, struct sector_range *range)
{
  pthread_mutex_lock (&l->lock);
  *range->prev = range->next;
  if (range->next)
    range->next->prev = range->prev;
  else
    l->last = range->prev;
  if (l->waiting)
    pthread_cond_broadcast (&l->dropped);
  pthread_mutex_unlock (&l->lock);
}
