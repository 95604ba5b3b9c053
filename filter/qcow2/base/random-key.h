/* qcow2ext: hashes with a key that nobody else knows.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * For hash tables whose keys an image chooses: with a hash that it can compute,
 * it could make all of them collide.
 */

#ifndef QCOW2_RANDOM_KEY_H
#define QCOW2_RANDOM_KEY_H

#include <stdint.h>
#include <sys/random.h>

/* Without random bytes, where the owner lies is something of a secret. */
static inline uint64_t
random_key (const void *owner)
{
  uint64_t key;

  if (getrandom (&key, sizeof key, GRND_NONBLOCK) != sizeof key)
    key = (uintptr_t) owner * UINT64_C (0x9e3779b97f4a7c15);
  return key;
}

/* The hash of a number, in the top bits; the key is odd.  If it were only
 * multiplied, numbers at equal distances would lie close together with one key
 * of ten.
 */
static inline uint64_t
keyed_hash (uint64_t key, uint64_t number)
{
  uint64_t h = number * key;

  h = (h ^ h >> 32) * UINT64_C (0x9e3779b97f4a7c15);
  return (h ^ h >> 29) * key;
}

#endif /* QCOW2_RANDOM_KEY_H */
