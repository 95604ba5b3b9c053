/* qcow2ext: a set of host clusters, by number.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "space/cluster-set.h"

void
cluster_set_init (struct cluster_set *s)
{
  memset (s, 0, sizeof *s);
  s->key = random_key (s) | 1;
}

void
cluster_set_clear (struct cluster_set *s)
{
  free (s->slot);
  s->slot = NULL;
  s->room = s->count = 0;
}

void
cluster_set_insert (struct cluster_set *s, uint64_t cluster)
{
  size_t i = cluster_set_slot (s, cluster);

  while (s->slot[i] && s->slot[i] != cluster + 1)
    i = (i + 1) & (s->room - 1);
  if (s->slot[i] == 0)
    s->count++;
  s->slot[i] = cluster + 1;
}

void
cluster_set_remove (struct cluster_set *s, uint64_t cluster)
{
  size_t i;

  if (!cluster_set_contains (s, cluster))
    return;
  i = cluster_set_slot (s, cluster);
  while (s->slot[i] != cluster + 1)
    i = (i + 1) & (s->room - 1);
  s->slot[i] = 0;
  s->count--;
  /* The elements behind it, up to an empty slot, must find their place again.
   */
  for (i = (i + 1) & (s->room - 1); s->slot[i]; i = (i + 1) & (s->room - 1)) {
    const uint64_t moved = s->slot[i] - 1;

    s->slot[i] = 0;
    s->count--;
    cluster_set_insert (s, moved);
  }
}

/* It doubles when it is half full. */
int
cluster_set_reserve (struct cluster_set *s, uint64_t **old)
{
  struct cluster_set bigger = *s;

  *old = NULL;
  if (s->count * 2 < s->room)
    return 0;
  bigger.room = s->room ? 2 * s->room : 64;
  bigger.shift = 64 - __builtin_ctzll (bigger.room);
  bigger.count = 0;
  bigger.slot = calloc (bigger.room, sizeof *bigger.slot);
  if (bigger.slot == NULL)
    return -ENOMEM;
  for (size_t i = 0; i < s->room; i++)
    if (s->slot[i])
      cluster_set_insert (&bigger, s->slot[i] - 1);
  *old = s->slot;
  *s = bigger;
  return 0;
}
