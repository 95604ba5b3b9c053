/* qcow2ext: epochs, in which requests count themselves.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "space/epochs.h"

/* What follows the epochs is not theirs. */
static struct {
  struct epochs e;
  unsigned char behind[256];
} all;

int
main (void)
{
  struct epoch_ticket first, second, third;
  unsigned old, next;

  memset (&all, 0xa5, sizeof all);
  epochs_init (&all.e);
  for (size_t i = 0; i < sizeof all.behind; i++)
    CHECK (all.behind[i] == 0xa5);
  CHECK (epochs_idle (&all.e));

  /* With nothing under way each grace period is over at once. */
  for (unsigned i = 0; i < 5; i++) {
    CHECK (epochs_advance (&all.e, &old));
    CHECK (epochs_drained (&all.e, old));
  }

  /* A request makes the one wait that begins after it, and only that. */
  first = epochs_enter (&all.e);
  CHECK (!epochs_idle (&all.e));
  CHECK (epochs_advance (&all.e, &old));
  CHECK (!epochs_drained (&all.e, old));
  second = epochs_enter (&all.e);
  CHECK (!epochs_advance (&all.e, &next));
  CHECK (!epochs_drained (&all.e, old));
  epochs_leave (&all.e, first);
  CHECK (epochs_drained (&all.e, old));

  /* One that is over stays so, whatever begins later. */
  CHECK (epochs_advance (&all.e, &next));
  CHECK (!epochs_drained (&all.e, next));
  third = epochs_enter (&all.e);
  CHECK (epochs_drained (&all.e, old));
  epochs_leave (&all.e, second);
  CHECK (epochs_drained (&all.e, next));
  CHECK (!epochs_idle (&all.e));
  epochs_leave (&all.e, third);
  CHECK (epochs_idle (&all.e));
  epochs_destroy (&all.e);
  return EXIT_SUCCESS;
}
