/* qcow2ext: a set of host clusters, by number.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A hash table with linear probing.  Images choose the numbers, so the hash
 * has a key that no image can know: otherwise a small one could make all of
 * them collide.
 *
 * No locks: a set is guarded by its owner.  Only cluster_set_reserve
 * allocates.
 */

#ifndef QCOW2_CLUSTER_SET_H
#define QCOW2_CLUSTER_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/random-key.h"

struct cluster_set {
  uint64_t *slot;               /* 0: empty; else number + 1 */
  size_t room, count;           /* room is 0 or a power of 2 */
  unsigned shift;               /* of the hash: 64 - log2 (room) */
  uint64_t key;                 /* odd */
};

void cluster_set_init (struct cluster_set *s);
void cluster_set_clear (struct cluster_set *s);

/* Makes room for one more.  *old is for the caller to free when it holds no
 * lock any more.  0 or -ENOMEM.
 */
int cluster_set_reserve (struct cluster_set *s, uint64_t **old);
void cluster_set_insert (struct cluster_set *s, uint64_t cluster);

/* Does nothing if the cluster is not there. */
void cluster_set_remove (struct cluster_set *s, uint64_t cluster);

static inline size_t
cluster_set_slot (const struct cluster_set *s, uint64_t cluster)
{
  return keyed_hash (s->key, cluster) >> s->shift;
}

static inline bool
cluster_set_contains (const struct cluster_set *s, uint64_t cluster)
{
  if (s->room == 0)
    return false;
  for (size_t i = cluster_set_slot (s, cluster); s->slot[i];
       i = (i + 1) & (s->room - 1))
    if (s->slot[i] == cluster + 1)
      return true;
  return false;
}

#endif /* QCOW2_CLUSTER_SET_H */
