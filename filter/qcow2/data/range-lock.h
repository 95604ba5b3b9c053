/* qcow2ext: one request at a time allocates in a guest range.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Range locks are taken whole and at once, so there is no order among them and
 * no deadlock; a request holds at most one.  They are held during I/O: they
 * are what makes other requests wait.  The mutex is not.
 */

#ifndef QCOW2_RANGE_LOCK_H
#define QCOW2_RANGE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct range_lock {
  uint64_t start, end;          /* bytes */
  struct range_lock *next;
};

struct range_locks {
  pthread_mutex_t lock;
  pthread_cond_t dropped;
  struct range_lock *held;
};

void range_locks_init (struct range_locks *locks);
void range_locks_destroy (struct range_locks *locks);

/* Waits until no other request holds a part of the range. */
void range_lock_take (struct range_locks *locks, struct range_lock *l,
                      uint64_t start, uint64_t end);
void range_lock_drop (struct range_locks *locks, struct range_lock *l);

/* Is any range locked? */
bool range_locks_any (struct range_locks *locks);

#endif /* QCOW2_RANGE_LOCK_H */
