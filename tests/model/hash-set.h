/* qcow2ext: a set of hashes.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef HASH_SET_H
#define HASH_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Empty if it is zeros.  The caller frees slot; those in use are not 0. */
struct hash_set {
  uint64_t *slot;
  size_t room, count;
};

/* Returns false if it is in already. */
bool hash_set_add (struct hash_set *set, uint64_t hash);

#endif /* HASH_SET_H */
