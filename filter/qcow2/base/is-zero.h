/* qcow2ext: is memory all zeros?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_IS_ZERO_H
#define QCOW2_IS_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Are count bytes all zero?  Most data tells in its first bytes.  Each byte is
 * then compared with the one 16 bytes before it, which the C library does with
 * the widest registers that the processor has.
 */
static inline bool
is_zero (const void *buf, size_t count)
{
  static const char zeros[16];
  const size_t head = count < sizeof zeros ? count : sizeof zeros;

  return memcmp (buf, zeros, head) == 0
    && memcmp (buf, (const char *) buf + head, count - head) == 0;
}

#endif /* QCOW2_IS_ZERO_H */
