/* qcow2ext: locks of ranges, first come first served.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * They are held while a store that may be far away does something.  A lock
 * that prefers readers or writers would keep the others waiting for as long as
 * there is steady traffic: here each waits for those that came before it, and
 * for nobody else.
 *
 * Invariant: waits_for is the number of locks before this one in the list with
 * which it conflicts.
 */

#include "build-config.h"

#include <stddef.h>

#include "base/cleanup.h"
#include "block-lock.h"

static bool
conflict (const struct block_lock *a, const struct block_lock *b)
{
  return (a->exclusive || b->exclusive)
    && a->start < b->end && b->start < a->end;
}

void
block_lock (struct block_locks *locks, struct block_lock *l, uint64_t start,
            uint64_t end, bool exclusive)
{
  *l = (struct block_lock) {
    .start = start, .end = end, .exclusive = exclusive,
  };
  pthread_cond_init (&l->granted, NULL);

  LOCK_FOR_SCOPE (&locks->mutex);
  for (const struct block_lock *o = locks->first; o; o = o->next)
    l->waits_for += conflict (o, l);
  l->prev = locks->last;
  if (l->prev)
    l->prev->next = l;
  else
    locks->first = l;
  locks->last = l;
  while (l->waits_for > 0)
    pthread_cond_wait (&l->granted, &locks->mutex);
}

void
block_unlock (struct block_locks *locks, struct block_lock *l)
{
  {
    LOCK_FOR_SCOPE (&locks->mutex);
    for (struct block_lock *o = l->next; o; o = o->next)
      if (conflict (l, o) && --o->waits_for == 0)
        pthread_cond_signal (&o->granted);
    if (l->prev)
      l->prev->next = l->next;
    else
      locks->first = l->next;
    if (l->next)
      l->next->prev = l->prev;
    else
      locks->last = l->prev;
  }
  pthread_cond_destroy (&l->granted);
}
