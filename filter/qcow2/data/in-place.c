/* qcow2ext: reads and writes in place, and what has to wait for them.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "base/bits.h"
#include "base/cleanup.h"
#include "data/in-place.h"

void
in_place_init (struct in_place *ip)
{
  epochs_init (&ip->epochs);
  pthread_mutex_init (&ip->lock, NULL);
  pthread_cond_init (&ip->ended, NULL);
  atomic_init (&ip->waiters, 0);
  atomic_init (&ip->any, false);
  ip->start = ip->end = ip->zeroed = 0;
}

void
in_place_destroy (struct in_place *ip)
{
  pthread_cond_destroy (&ip->ended);
  pthread_mutex_destroy (&ip->lock);
  epochs_destroy (&ip->epochs);
}

struct epoch_ticket
in_place_enter (struct in_place *ip)
{
  return epochs_enter (&ip->epochs);
}

/* Either this sees the waiter, or the waiter, which counts itself before it
 * looks at the epochs, sees that the request has left.
 */
void
in_place_leave (struct in_place *ip, struct epoch_ticket ticket)
{
  epochs_leave (&ip->epochs, ticket);
  if (atomic_load (&ip->waiters) == 0)
    return;
  pthread_mutex_lock (&ip->lock);
  pthread_cond_broadcast (&ip->ended);
  pthread_mutex_unlock (&ip->lock);
}

/* A request that enters only now will see the new entries. */
void
in_place_zeroed (struct in_place *ip, uint64_t start, uint64_t end)
{
  if (epochs_idle (&ip->epochs))
    return;
  LOCK_FOR_SCOPE (&ip->lock);
  ip->start = ip->any ? min64 (ip->start, start) : start;
  ip->end = ip->any ? max64 (ip->end, end) : end;
  ip->zeroed++;
  ip->any = true;
}

/* Waits for the requests in place that have begun by now.  Under the lock, which
 * is let go of while waiting.
 */
static void
wait_for_all (struct in_place *ip)
{
  unsigned epoch;

  atomic_fetch_add (&ip->waiters, 1);
  while (!epochs_advance (&ip->epochs, &epoch))
    pthread_cond_wait (&ip->ended, &ip->lock);
  while (!epochs_drained (&ip->epochs, epoch))
    pthread_cond_wait (&ip->ended, &ip->lock);
  atomic_fetch_sub (&ip->waiters, 1);
}

void
in_place_wait (struct in_place *ip, uint64_t start, uint64_t end)
{
  uint64_t zeroed;

  /* What was zeroed of this range was noted before its lock was dropped. */
  if (!atomic_load_explicit (&ip->any, memory_order_relaxed))
    return;
  LOCK_FOR_SCOPE (&ip->lock);
  if (!ip->any || end <= ip->start || ip->end <= start)
    return;
  zeroed = ip->zeroed;
  wait_for_all (ip);
  if (zeroed == ip->zeroed)
    ip->any = false;
}
