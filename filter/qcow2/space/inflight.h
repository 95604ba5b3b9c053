/* qcow2ext: who is under way.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Two questions that writing raises:
 *
 * 1. May a host cluster that was let go be used again?  Only when every
 *    request has ended that may have looked it up before.  Requests count
 *    themselves in one of two sets; flipping the sets starts a grace period,
 *    which is over when the old set is empty.  There is one grace period at a
 *    time.
 *
 * 2. May a request allocate in a guest cluster?  Only one at a time: range
 *    locks on guest ranges, taken whole and at once, so there is no order
 *    among them and no deadlock.  A request holds at most one.
 */

#ifndef QCOW2_INFLIGHT_H
#define QCOW2_INFLIGHT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/brlock.h"

struct inflight {
  atomic_uint epoch;            /* its lowest bit is the current set */
  struct {
    atomic_long count[2];
  } __attribute__ ((aligned (64))) slot[BRLOCK_SLOTS];
};

/* What a request carries from enter to leave. */
struct inflight_ticket {
  unsigned slot, set;
};

void inflight_init (struct inflight *f);
struct inflight_ticket inflight_enter (struct inflight *f);
void inflight_leave (struct inflight *f, struct inflight_ticket t);

/* Starts a grace period: *set must become empty.  Fails while the requests of
 * an earlier one have not ended, which would get lost among the new ones.
 * Calls must not overlap.
 */
bool inflight_flip (struct inflight *f, unsigned *set);
bool inflight_is_empty (struct inflight *f, unsigned set);

struct range_lock {
  uint64_t start, end;          /* bytes */
  struct range_lock *next;
};

struct range_locks {
  struct range_lock *held;
  pthread_cond_t released;
};

/* Under the given mutex, which waiting lets go of. */
void range_lock (struct range_locks *locks, pthread_mutex_t *mutex,
                 struct range_lock *l, uint64_t start, uint64_t end);
void range_unlock (struct range_locks *locks, struct range_lock *l);

#endif /* QCOW2_INFLIGHT_H */
