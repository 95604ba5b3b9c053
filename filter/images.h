/* qcow2ext: the images that this server serves.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_IMAGES_H
#define QCOW2EXT_IMAGES_H

#include "served-image.h"

/* Before the server serves, and before other threads ask for images. */
void images_start (void);

/* The image of the command line; with dir=, there is none (NULL). */
struct served_image *images_the_one (void);

/* The image of that name in the directory, which need not exist; for the
 * caller to use until images_put.  NULL (reported): there is no memory.
 */
struct served_image *images_get (const char *name);

/* Does nothing with the one of the command line. */
void images_put (struct served_image *served);

/* Calls fn for each image that is open. */
void images_each (void (*fn) (struct served_image *served));

/* The server ends, and nobody uses any. */
void images_free (void);

#endif /* QCOW2EXT_IMAGES_H */
