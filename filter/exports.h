/* qcow2ext: the list of exports.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_EXPORTS_H
#define QCOW2EXT_EXPORTS_H

#include <stdbool.h>

#include <nbdkit-filter.h>

#include "served-image.h"

/* What a client that asks for a name gets: an image, which is the caller's
 * to use (see images.h), and what of it.  Returns 0 or -1 (reported).  The name
 * in *export belongs to the caller's or to the configuration.
 */
int exports_parse (const char *name, struct served_image **served,
                   struct export *export);

/* The name of what a client gets that asks for none; NULL (reported): it
 * must ask for one.
 */
const char *exports_default (void);

/* Adds what is served: with dir=, the images as their headers say.  Nothing is
 * opened for writing, and nothing waits for clients.  Returns 0 or -1
 * (reported).
 */
int exports_list (nbdkit_backend *backend, struct nbdkit_exports *exports);

#endif /* QCOW2EXT_EXPORTS_H */
