/* qcow2ext: what direct I/O demands.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_DIRECT_LIMITS_H
#define QCOW2EXT_DIRECT_LIMITS_H

#include <stdint.h>

/* In bytes; powers of two. */
struct direct_limits {
  uint32_t block;               /* offset and length are multiples of it */
  uint32_t memory;              /* the address of the data as well */
};

/* What a descriptor that has O_DIRECT demands.  Reads of it, if nothing else
 * says so.  Returns 0, or -1 with errno set: there is no direct I/O.
 */
int direct_limits_find (int fd, struct direct_limits *limits);

#endif /* QCOW2EXT_DIRECT_LIMITS_H */
