/* qcow2ext: a number that nobody else knows.
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

#endif /* QCOW2_RANDOM_KEY_H */
