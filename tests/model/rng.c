/* qcow2ext: random numbers that are the same everywhere.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "rng.h"

uint64_t
rng_next (struct rng *rng)
{
  uint64_t x = rng->state += UINT64_C (0x9e3779b97f4a7c15);

  x = (x ^ x >> 30) * UINT64_C (0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C (0x94d049bb133111eb);
  return x ^ x >> 31;
}

uint64_t
rng_below (struct rng *rng, uint64_t n)
{
  return rng_next (rng) % n;
}
