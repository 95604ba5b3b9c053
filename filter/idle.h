/* qcow2ext: a thread for clients that do nothing.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_IDLE_H
#define QCOW2EXT_IDLE_H

/* Starts the thread.  If there is none to be had, that is reported.  Not
 * before the server forks.
 */
void idle_start (void);

/* Ends it, once it has finished what it is doing. */
void idle_stop (void);

#endif /* QCOW2EXT_IDLE_H */
