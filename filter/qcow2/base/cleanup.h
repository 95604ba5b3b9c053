/* qcow2ext: scoped release of memory and locks.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_CLEANUP_H
#define QCOW2_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void
cleanup_free (void *p)
{
  free (*(void **) p);
}
#define CLEANUP_FREE __attribute__ ((cleanup (cleanup_free)))

static inline void
cleanup_close (int *fd)
{
  if (*fd >= 0)
    close (*fd);
}
#define CLEANUP_CLOSE __attribute__ ((cleanup (cleanup_close)))

static inline void
cleanup_unlock (pthread_mutex_t **lock)
{
  pthread_mutex_unlock (*lock);
}
#define CLEANUP_CONCAT_(a, b) a##b
#define CLEANUP_CONCAT(a, b) CLEANUP_CONCAT_ (a, b)

/* Holds the mutex until the end of the enclosing block. */
#define LOCK_FOR_SCOPE(mutex)                                           \
  __attribute__ ((cleanup (cleanup_unlock), unused))                    \
  pthread_mutex_t *CLEANUP_CONCAT (lock_, __LINE__) = (mutex);          \
  pthread_mutex_lock (CLEANUP_CONCAT (lock_, __LINE__))

#endif /* QCOW2_CLEANUP_H */
