/* qcow2ext: what this build can do.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_DUMP_H
#define QCOW2EXT_DUMP_H

/* Prints it, for nbdkit --dump-plugin and scripts. */
void dump_build (void);

#endif /* QCOW2EXT_DUMP_H */
