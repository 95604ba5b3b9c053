/* qcow2ext: which requests may still look at what was let go of.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A host cluster that was let go of may be used again only when every request
 * has ended that may have looked it up before.  Requests count themselves
 * under the parity of the epoch in which they enter.  To advance the epoch
 * begins a grace period: it is over when no request counts under the parity of
 * the old epoch, or when the epoch has been advanced once more, which takes
 * just that.
 *
 *   epoch n: requests enter under n % 2
 *   advance, if none is left under (n + 1) % 2: those of epoch n - 1
 *   epoch n + 1: the requests of epoch n end; none joins them
 *
 * The lock keeps two from advancing at the same time.  Requests do not take it.
 */

#ifndef QCOW2_EPOCHS_H
#define QCOW2_EPOCHS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/brlock.h"

struct epochs {
  atomic_uint epoch;
  pthread_mutex_t lock;
  struct {
    atomic_long count[2];       /* by parity */
  } __attribute__ ((aligned (64))) slot[BRLOCK_SLOTS];
};

/* What a request carries from enter to leave. */
struct epoch_ticket {
  unsigned slot, parity;
};

void epochs_init (struct epochs *e);
void epochs_destroy (struct epochs *e);
struct epoch_ticket epochs_enter (struct epochs *e);
void epochs_leave (struct epochs *e, struct epoch_ticket t);

/* Begins a grace period, named *old.  Returns false if requests of the epoch
 * before have not ended, which would get lost among the new ones.
 */
bool epochs_advance (struct epochs *e, unsigned *old);

/* Is the grace period over? */
bool epochs_drained (const struct epochs *e, unsigned old);

/* Is nothing under way at all? */
bool epochs_idle (const struct epochs *e);

#endif /* QCOW2_EPOCHS_H */
