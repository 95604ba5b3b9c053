/* qcow2ext: stores of the files of a chain.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_OPEN_H
#define QCOW2EXT_STORE_OPEN_H

#include "image/image.h"
#include "name-policy.h"

/* Makes a store of our own descriptor of the served image or its data file, as
 * the command line wants it: past the page cache, or with advice for that.
 * Takes the descriptor, even if it fails.  Returns 0 or -errno (reported).
 */
int store_open_own (int fd, const char *name, struct store **store);

/* The engine's door to the files; opaque is the struct named_files.  Files
 * are opened for reading only, but for the data file of the served image.  The
 * rules are those of name-policy.c.
 */
int named_open_data (void *opaque, unsigned depth, const struct store *of,
                     const char *name, struct store **store);
int named_open_backing (void *opaque, unsigned depth, const struct store *of,
                        const char *name, const char *format,
                        struct store **store, enum image_format *as);

/* When the chain of the image is open: was all that the command line says of
 * layers used?  Returns 0 or -EINVAL (reported).
 */
int named_check_layers (const struct named_files *files, const char *image);

#endif /* QCOW2EXT_STORE_OPEN_H */
