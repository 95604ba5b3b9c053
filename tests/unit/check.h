/* qcow2ext: what is not true ends a unit test.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(x)                                                        \
  do {                                                                  \
    if (!(x)) {                                                         \
      fprintf (stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
      exit (EXIT_FAILURE);                                              \
    }                                                                   \
  } while (0)

#endif /* CHECK_H */
