/* qcow2ext: places where a test may stop a thread.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * tests/unit/test-unit-races runs requests against each other in every order.  It
 * can stop a thread where it takes a lock and at each operation on a file; a
 * PAUSE_POINT is for places where it takes neither and yet something may
 * change that matters: between two atomic operations.  Anywhere else this is
 * nothing.
 */

#ifndef QCOW2_PAUSE_POINT_H
#define QCOW2_PAUSE_POINT_H

#ifdef QCOW2_PAUSE_POINTS
void sched_point (const char *name);
#define PAUSE_POINT(name) sched_point (name)
#else
#define PAUSE_POINT(name) ((void) 0)
#endif

#endif /* QCOW2_PAUSE_POINT_H */
