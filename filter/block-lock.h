/* qcow2ext: locks of ranges, first come first served.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_BLOCK_LOCK_H
#define QCOW2EXT_BLOCK_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* What is locked in one store, or waited for, in the order of coming. */
struct block_locks {
  pthread_mutex_t mutex;        /* guards the list; never held during I/O */
  struct block_lock *first, *last;
};
#define BLOCK_LOCKS_INIT { .mutex = PTHREAD_MUTEX_INITIALIZER }

struct block_lock {
  uint64_t start, end;          /* bytes, or whatever all of them count */
  bool exclusive;
  unsigned waits_for;           /* how many of those that came before */
  pthread_cond_t granted;
  struct block_lock *prev, *next;
};

/* Locks [start, end) in the caller's l, which must stay where it is until it
 * is unlocked.  Waits for all that came before, overlap and are exclusive; an
 * exclusive lock for all that overlap.  May sleep.  A thread that holds one
 * takes no other in the same store.
 */
void block_lock (struct block_locks *locks, struct block_lock *l,
                 uint64_t start, uint64_t end, bool exclusive);
void block_unlock (struct block_locks *locks, struct block_lock *l);

#endif /* QCOW2EXT_BLOCK_LOCK_H */
