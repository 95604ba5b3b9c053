/* qcow2ext: zeroing and trimming a guest range.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_ZERO_H
#define QCOW2_ZERO_H

#include "data/writer.h"

struct zero_request {
  struct writer *w;
  bool unmap;                   /* space may be given back */
  bool fast;                    /* no zeros may be written */
  bool trim;                    /* it does not have to become zero */
};

/* Can all of the range become zero without writing zeros?  0 or -ENOTSUP. */
int zero_check_fast (const struct zero_request *z, uint64_t count,
                     uint64_t offset);

/* The caller holds no range lock.  0 or -errno. */
int zero_range (const struct zero_request *z, uint64_t count,
                uint64_t offset);

#endif /* QCOW2_ZERO_H */
