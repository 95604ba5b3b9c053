/* qcow2ext: which requests may still look at what was let go of.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "base/cleanup.h"
#include "space/epochs.h"

void
epochs_init (struct epochs *e)
{
  atomic_init (&e->epoch, 0);
  pthread_mutex_init (&e->lock, NULL);
  for (unsigned i = 0; i < BRLOCK_SLOTS; i++)
    for (unsigned parity = 0; parity < 2; parity++)
      atomic_init (&e->slot[i].count[parity], 0);
}

void
epochs_destroy (struct epochs *e)
{
  pthread_mutex_destroy (&e->lock);
}

struct epoch_ticket
epochs_enter (struct epochs *e)
{
  struct epoch_ticket t = { .slot = thread_slot () };

  for (;;) {
    const unsigned epoch = atomic_load (&e->epoch);

    t.parity = epoch & 1;
    atomic_fetch_add (&e->slot[t.slot].count[t.parity], 1);
    /* An advance in between may have found nobody there: the request would
     * count under the wrong parity.
     */
    if (atomic_load (&e->epoch) == epoch)
      return t;
    atomic_fetch_sub (&e->slot[t.slot].count[t.parity], 1);
  }
}

void
epochs_leave (struct epochs *e, struct epoch_ticket t)
{
  atomic_fetch_sub (&e->slot[t.slot].count[t.parity], 1);
}

static bool
is_empty (const struct epochs *e, unsigned parity)
{
  for (unsigned i = 0; i < BRLOCK_SLOTS; i++)
    if (atomic_load (&e->slot[i].count[parity]) != 0)
      return false;
  return true;
}

bool
epochs_advance (struct epochs *e, unsigned *old)
{
  LOCK_FOR_SCOPE (&e->lock);
  *old = atomic_load (&e->epoch);
  if (!is_empty (e, (*old + 1) & 1))
    return false;
  atomic_fetch_add (&e->epoch, 1);
  return true;
}

bool
epochs_drained (const struct epochs *e, unsigned old)
{
  return atomic_load (&e->epoch) - old >= 2 || is_empty (e, old & 1);
}

bool
epochs_idle (const struct epochs *e)
{
  return is_empty (e, 0) && is_empty (e, 1);
}
