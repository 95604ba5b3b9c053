/* qcow2ext: who is under way.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "space/inflight.h"
#include "base/mutant.h"
#include "base/pause-point.h"

void
inflight_init (struct inflight *f)
{
  atomic_init (&f->epoch, 0);
  for (unsigned i = 0; i < BRLOCK_SLOTS; i++)
    for (unsigned set = 0; set < 2; set++)
      atomic_init (&f->slot[i].count[set], 0);
}

struct inflight_ticket
inflight_enter (struct inflight *f)
{
  struct inflight_ticket t = { .slot = thread_slot () };

  for (;;) {
    const unsigned epoch = atomic_load (&f->epoch);

    PAUSE_POINT ("enter: the set is known");
    t.set = epoch & 1;
    atomic_fetch_add (&f->slot[t.slot].count[t.set], 1);
    /* A flip in between may have found the set empty: we would be in the
     * wrong one.
     */
    PAUSE_POINT ("enter: counted");
    if (atomic_load (&f->epoch) == epoch)
      return t;
    atomic_fetch_sub (&f->slot[t.slot].count[t.set], 1);
  }
}

void
inflight_leave (struct inflight *f, struct inflight_ticket t)
{
  atomic_fetch_sub (&f->slot[t.slot].count[t.set], 1);
}

bool
inflight_flip (struct inflight *f, unsigned *set)
{
  *set = atomic_load (&f->epoch) & 1;
  if (!inflight_is_empty (f, !*set) && !MUTANT (flip_early))
    return false;
  PAUSE_POINT ("flip: the old set is empty");
  atomic_fetch_add (&f->epoch, 1);
  return true;
}

bool
inflight_is_empty (struct inflight *f, unsigned set)
{
  for (unsigned i = 0; i < BRLOCK_SLOTS; i++)
    if (atomic_load (&f->slot[i].count[set]) != 0)
      return false;
  return true;
}

static bool
is_free (const struct range_locks *locks, uint64_t start, uint64_t end)
{
  for (const struct range_lock *l = locks->held; l; l = l->next)
    if (start < l->end && l->start < end)
      return false;
  return true;
}

void
range_lock (struct range_locks *locks, pthread_mutex_t *mutex,
            struct range_lock *l, uint64_t start, uint64_t end)
{
  while (!is_free (locks, start, end))
    pthread_cond_wait (&locks->released, mutex);
  l->start = start;
  l->end = end;
  l->next = locks->held;
  locks->held = l;
}

void
range_unlock (struct range_locks *locks, struct range_lock *l)
{
  struct range_lock **p = &locks->held;

  while (*p != l)
    p = &(*p)->next;
  *p = l->next;
  pthread_cond_broadcast (&locks->released);
}
