/* qcow2ext: memory that a test cannot do without.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef NEED_H
#define NEED_H

#include <stdio.h>
#include <stdlib.h>

static inline void *
need (void *p)
{
  if (p == NULL) {
    fputs ("out of memory\n", stderr);
    abort ();
  }
  return p;
}

#endif /* NEED_H */
