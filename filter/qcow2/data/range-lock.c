/* qcow2ext: one request at a time allocates in a guest range.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stddef.h>

#include "base/cleanup.h"
#include "data/range-lock.h"

void
range_locks_init (struct range_locks *locks)
{
  pthread_mutex_init (&locks->lock, NULL);
  pthread_cond_init (&locks->dropped, NULL);
  locks->held = NULL;
}

void
range_locks_destroy (struct range_locks *locks)
{
  pthread_cond_destroy (&locks->dropped);
  pthread_mutex_destroy (&locks->lock);
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
range_lock_take (struct range_locks *locks, struct range_lock *l,
                 uint64_t start, uint64_t end)
{
  LOCK_FOR_SCOPE (&locks->lock);
  while (!is_free (locks, start, end))
    pthread_cond_wait (&locks->dropped, &locks->lock);
  l->start = start;
  l->end = end;
  l->next = locks->held;
  locks->held = l;
}

void
range_lock_drop (struct range_locks *locks, struct range_lock *l)
{
  struct range_lock **p = &locks->held;

  LOCK_FOR_SCOPE (&locks->lock);
  while (*p != l)
    p = &(*p)->next;
  *p = l->next;
  pthread_cond_broadcast (&locks->dropped);
}

bool
range_locks_any (struct range_locks *locks)
{
  LOCK_FOR_SCOPE (&locks->lock);
  return locks->held != NULL;
}
