/* qcow2ext: makes, starts and ends the writing side.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   made --first change--> started --a flush fails, the image is unsound-->
 *   failed (health.h)
 *
 * Opening changes nothing, so that looking at an image costs nothing.  The
 * first change of a session is prepared for once.
 */

#ifndef QCOW2_IMAGE_WRITER_H
#define QCOW2_IMAGE_WRITER_H

#include "data/writer.h"
#include "image/env.h"

/* Makes the writer of a layer that may be written to, layer->writer.  env
 * stays the caller's.  Returns 0 or -errno.
 */
int writer_open (struct layer *layer, const struct image_write_env *env,
                 const struct write_options *options);
void writer_close (struct layer *layer);

/* See image_flush. */
int layer_flush (struct layer *layer);

#endif /* QCOW2_IMAGE_WRITER_H */
