/* qcow2ext: our own descriptor of a served image's file.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_IMAGE_FILE_H
#define QCOW2EXT_IMAGE_FILE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "served-image.h"

/* Why there is none. */
enum {
  IMAGE_FILE_NOT_LOCAL = -1,    /* it may be elsewhere; nothing is wrong */
  IMAGE_FILE_NOT_OPENED = -2,   /* reported */
};

/* Opens the image file itself, if it is there and something we can open; for
 * writing, if that is wanted and allowed.  Waits for other programs' leases of
 * the file.  Returns a descriptor or one of the above.
 */
int image_file_open (const struct served_image *served, bool writable,
                     struct stat *st);

#endif /* QCOW2EXT_IMAGE_FILE_H */
