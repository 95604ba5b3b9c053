/* qcow2ext: a limit of file sizes is an error, not the end of the server.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_SIZE_SIGNAL_H
#define QCOW2EXT_SIZE_SIGNAL_H

/* From here on, and until it is undone.  Both while there is one thread. */
void size_signal_catch (void);
void size_signal_undo (void);

#endif /* QCOW2EXT_SIZE_SIGNAL_H */
