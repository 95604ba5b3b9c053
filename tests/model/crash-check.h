/* qcow2ext: is what a crash left sound?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef CRASH_CHECK_H
#define CRASH_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rng.h"
#include "world.h"

/* The files as they may be after a crash. */
struct crash_state {
  struct world *w;
  struct memory_file file[MEMORY_FILES];
  size_t cut;                   /* operations that were begun */
  size_t flushed;               /* event that was flushed by then */

  struct rng rng;               /* says what is written to it in the end */
  struct checker checker;
  uint8_t *guest;               /* room for the guest's disk */
  uint8_t *fate;                /* an enum fate for each sector */
  char why[512];                /* it is not sound */
};

/* Writes to the files in the end.  by_qemu: if qemu-img is there, and can judge
 * such an image, it is asked as well, and this is one more; NULL: it is not.
 * Returns false, with the reason in why, if something is wrong.
 */
bool crash_state_is_sound (struct crash_state *s, uint64_t *by_qemu);

#endif /* CRASH_CHECK_H */
