/* qcow2ext: which open files hold the same, although opened more than once.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_CONTENTS_H
#define QCOW2EXT_CONTENTS_H

#include <stdint.h>
#include <sys/stat.h>

/* The number for what a file holds now (struct store), to be had before the
 * file is first read; 0: none.  st is what fstat says of fd, which is open for
 * reading only.  May be called by many threads.
 */
uint64_t contents_number (int fd, const struct stat *st);

#endif /* QCOW2EXT_CONTENTS_H */
