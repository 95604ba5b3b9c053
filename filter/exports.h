/* qcow2ext: the list of exports.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_EXPORTS_H
#define QCOW2EXT_EXPORTS_H

#include <stdbool.h>

#include <nbdkit-filter.h>

#include "served-image.h"

/* What a client that asks for exportname gets: the ID or the name of a
 * snapshot, or NULL for the live disk.
 */
const char *exports_snapshot (const char *exportname);

/* Adds what is served.  Returns 0 or -1 (reported). */
int exports_list (struct served_image *served, nbdkit_backend *backend,
                  bool readonly, struct nbdkit_exports *exports);

#endif /* QCOW2EXT_EXPORTS_H */
