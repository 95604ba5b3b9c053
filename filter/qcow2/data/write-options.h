/* qcow2ext: what is done with data that is written.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_WRITE_OPTIONS_H
#define QCOW2_WRITE_OPTIONS_H

#include <stdbool.h>

/* What becomes of zeros that are written as data. */
enum detect_zeroes {
  DETECT_OFF,                   /* they are written */
  DETECT_ON,                    /* clusters of zeros are zeroed */
  DETECT_UNMAP,                 /* and give their space back */
};

struct write_options {
  bool compress;                /* whole clusters; zeros are then detected,
                                   too */
  enum detect_zeroes detect_zeroes;
};

#endif /* QCOW2_WRITE_OPTIONS_H */
