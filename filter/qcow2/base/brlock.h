/* qcow2ext: a lock for many short readers and rare writers.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Looking up a cached table takes tens of nanoseconds, so a lock whose state
 * all threads write to would be the bottleneck.  Here every reader takes one
 * of a few mutexes, chosen by its thread and each on a cache line of its own;
 * a writer takes them all, in order.  Readers of different threads therefore
 * share no cache line, and a writer waits for the look-ups that have begun.
 *
 * No I/O and no allocation happens under either side.  Readers never nest.
 */

#ifndef QCOW2_BRLOCK_H
#define QCOW2_BRLOCK_H

#include <pthread.h>

#define BRLOCK_SLOTS 16

struct brlock {
  struct {
    pthread_mutex_t mutex;
  } __attribute__ ((aligned (64))) slot[BRLOCK_SLOTS];
};

void brlock_init (struct brlock *lock);
void brlock_destroy (struct brlock *lock);

/* The number of this thread, counted from 1; 0: it has none yet, and
 * brlock_number_thread gives it one.
 */
extern _Thread_local unsigned brlock_thread;
void brlock_number_thread (void);

/* A number below BRLOCK_SLOTS that differs between threads as far as that
 * goes.
 */
static inline unsigned
thread_slot (void)
{
  if (__builtin_expect (brlock_thread == 0, 0))
    brlock_number_thread ();
  return brlock_thread - 1;
}

static inline pthread_mutex_t *
brlock_read (struct brlock *lock)
{
  pthread_mutex_t *mutex = &lock->slot[thread_slot ()].mutex;

  pthread_mutex_lock (mutex);
  return mutex;                 /* which the caller unlocks */
}

void brlock_write (struct brlock *lock);
void brlock_write_unlock (struct brlock *lock);

#endif /* QCOW2_BRLOCK_H */
