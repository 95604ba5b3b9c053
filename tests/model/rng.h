/* qcow2ext: random numbers that are the same everywhere.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef RNG_H
#define RNG_H

#include <stdint.h>

struct rng {
  uint64_t state;
};
uint64_t rng_next (struct rng *rng);
uint64_t rng_below (struct rng *rng, uint64_t n); /* n > 0 */

#endif /* RNG_H */
