/* qcow2ext: lies about images.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef LIES_H
#define LIES_H

#include <stdbool.h>

#include "store-memory.h"

struct walker;

#define LIE_NAME 160            /* bytes */

struct lie {
  const char *name;             /* IMAGE:WHAT-IS-SAID */
  const struct walker *at;      /* where what is in the sound image */
  const struct memory_file *file; /* MEMORY_FILES of them, with the lie */
  bool is_true;                 /* the image as it was */
};

/* Tells each lie about each image of hostile-images.h that it fits, after the
 * truth about that image.  What fn is given is there until it returns.
 */
void lies_tell (void (*fn) (const struct lie *lie));

#endif /* LIES_H */
