/* qcow2ext: sets of host clusters that an image has chosen.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An image lays its tables where it likes: at equal distances, at large powers
 * of two, or so that a hash that it can compute puts all of them into one
 * place.  How far elements are from their places is what an insertion costs.
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "space/cluster-set.h"

#define COUNT UINT64_C (16384)
#define LONGEST 8               /* the mean way to an element, at most */
#define ROUNDS 20               /* with a key each */

/* All multiples of it up to COUNT have products with 0x9e3779b97f4a7c15, a
 * multiplier that programs like, of which the top 16 bits are zeros.
 */
#define BAD_DISTANCE UINT64_C (1134903170)

/* The mean way from where an element should be to where it is. */
static uint64_t
mean_way (const struct cluster_set *s)
{
  uint64_t sum = 0;

  for (size_t i = 0; i < s->room; i++)
    if (s->slot[i])
      sum += (i - cluster_set_slot (s, s->slot[i] - 1)) & (s->room - 1);
  return sum / s->count;
}

static uint64_t
way_of_multiples (uint64_t distance)
{
  struct cluster_set set;
  uint64_t *old, way;

  cluster_set_init (&set);
  for (uint64_t i = 1; i <= COUNT; i++) {
    CHECK (cluster_set_reserve (&set, &old) == 0);
    free (old);
    cluster_set_insert (&set, i * distance);
  }
  CHECK (set.count == COUNT);
  for (uint64_t i = 1; i <= COUNT; i++)
    CHECK (cluster_set_contains (&set, i * distance));
  CHECK (!cluster_set_contains (&set, 0));
  way = mean_way (&set);
  /* Half of them go; the others are still found. */
  for (uint64_t i = 1; i <= COUNT; i += 2)
    cluster_set_remove (&set, i * distance);
  for (uint64_t i = 1; i <= COUNT; i++)
    CHECK (cluster_set_contains (&set, i * distance) == (i % 2 == 0));
  cluster_set_clear (&set);
  return way;
}

int
main (void)
{
  struct cluster_set one, other;
  uint64_t way, worst = 0;

  cluster_set_init (&one);
  cluster_set_init (&other);
  CHECK (one.key != other.key);
  for (unsigned k = 0; k < 41 * ROUNDS; k++) {
    way = way_of_multiples (k % 41 == 40 ? BAD_DISTANCE
                                         : UINT64_C (1) << k % 41);
    worst = way > worst ? way : worst;
  }
  printf ("%" PRIu64 " tables at each of 41 distances, %d times: found after %"
          PRIu64 " others in the mean, at worst\n", COUNT, ROUNDS, worst);
  CHECK (worst <= LONGEST);
  return EXIT_SUCCESS;
}
