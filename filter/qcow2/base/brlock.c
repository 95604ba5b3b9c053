/* qcow2ext: a lock for many short readers and rare writers.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdatomic.h>

#include "base/brlock.h"

static atomic_uint next_thread;

_Thread_local unsigned brlock_thread;

void
brlock_number_thread (void)
{
  brlock_thread = 1 + atomic_fetch_add (&next_thread, 1) % BRLOCK_SLOTS;
}

void
brlock_init (struct brlock *lock)
{
  for (unsigned i = 0; i < BRLOCK_SLOTS; i++)
    pthread_mutex_init (&lock->slot[i].mutex, NULL);
}

void
brlock_destroy (struct brlock *lock)
{
  for (unsigned i = 0; i < BRLOCK_SLOTS; i++)
    pthread_mutex_destroy (&lock->slot[i].mutex);
}

void
brlock_write (struct brlock *lock)
{
  for (unsigned i = 0; i < BRLOCK_SLOTS; i++)
    pthread_mutex_lock (&lock->slot[i].mutex);
}

void
brlock_write_unlock (struct brlock *lock)
{
  for (unsigned i = BRLOCK_SLOTS; i-- > 0;)
    pthread_mutex_unlock (&lock->slot[i].mutex);
}
