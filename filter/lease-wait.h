/* qcow2ext: waiting until another program gives up its lease of a file.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_LEASE_WAIT_H
#define QCOW2EXT_LEASE_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/* All zeros before the first call. */
struct lease_wait {
  int64_t until;                /* in ms of the monotonic clock; 0: not begun */
  int pause;                    /* the last one, ms */
};

/* Is due when an open with O_NONBLOCK has failed with EWOULDBLOCK.  Sleeps for
 * a moment, and returns whether to try it again.
 */
bool lease_wait (struct lease_wait *w);

#endif /* QCOW2EXT_LEASE_WAIT_H */
