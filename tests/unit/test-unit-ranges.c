/* qcow2ext: ranges that touch each other, or do not.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Requests for neighbouring ranges do not wait for each other.  Holes that
 * touch become one.
 */

#include "build-config.h"

#include <unistd.h>

#include "check.h"
#include "data/known-holes.h"
#include "data/range-lock.h"

static void
test_locks (void)
{
  struct range_locks locks;
  struct range_lock middle, before, after;

  range_locks_init (&locks);
  range_lock_take (&locks, &middle, 10, 20);
  range_lock_take (&locks, &before, 0, 10);
  range_lock_take (&locks, &after, 20, 30);
  range_lock_drop (&locks, &middle);
  range_lock_drop (&locks, &after);
  CHECK (range_locks_any (&locks));
  range_lock_drop (&locks, &before);
  CHECK (!range_locks_any (&locks));
  range_locks_destroy (&locks);
}

static struct known_holes holes;

static bool
covers (uint64_t start, uint64_t end)
{
  uint64_t generation;

  return known_holes_cover (&holes, start, end, &generation);
}

static void
test_holes (void)
{
  known_holes_init (&holes);
  known_holes_add (&holes, 100, 200, 0);
  known_holes_add (&holes, 200, 300, 0);
  CHECK (covers (100, 300));
  known_holes_add (&holes, 50, 100, 0);
  CHECK (covers (50, 300) && !covers (49, 300) && !covers (50, 301));
  known_holes_add (&holes, 150, 160, 0); /* within */
  CHECK (covers (50, 300));
  known_holes_add (&holes, 250, 400, 0); /* overlaps */
  CHECK (covers (50, 400) && !covers (50, 401));
  known_holes_add (&holes, 500, 600, 0);
  CHECK (covers (500, 600) && !covers (399, 501));

  /* What was found before all was forgotten is not kept. */
  known_holes_forget (&holes);
  known_holes_add (&holes, 0, 100, 0);
  CHECK (!covers (0, 100) && !covers (50, 400) && !covers (500, 600));
  known_holes_add (&holes, 0, 100, 1);
  CHECK (covers (0, 100));
  known_holes_destroy (&holes);
}

int
main (void)
{
  alarm (20);                   /* what waits for ever has failed */
  test_locks ();
  test_holes ();
  return EXIT_SUCCESS;
}
