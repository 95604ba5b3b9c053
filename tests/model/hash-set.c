/* qcow2ext: a set of hashes.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdlib.h>

#include "hash-set.h"
#include "need.h"

bool
hash_set_add (struct hash_set *set, uint64_t hash)
{
  hash += hash == 0;
  if (2 * set->count >= set->room) {
    struct hash_set bigger = { .room = set->room ? 2 * set->room : 4096 };

    bigger.slot = need (calloc (bigger.room, sizeof *bigger.slot));
    for (size_t i = 0; i < set->room; i++)
      if (set->slot[i])
        hash_set_add (&bigger, set->slot[i]);
    free (set->slot);
    *set = bigger;
  }
  for (size_t i = hash & (set->room - 1);; i = (i + 1) & (set->room - 1)) {
    if (set->slot[i] == hash)
      return false;
    if (set->slot[i] == 0) {
      set->slot[i] = hash;
      set->count++;
      return true;
    }
  }
}
