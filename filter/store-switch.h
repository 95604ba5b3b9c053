/* qcow2ext: the store of the image file, which changes over to our own
 * descriptor of it.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_SWITCH_H
#define QCOW2EXT_STORE_SWITCH_H

#include <stdatomic.h>

#include <nbdkit-filter.h>

#include "image/image.h"

/* An export of the plugin below. */
struct export_below {
  const char *name;             /* lives as long as the store */
  atomic_bool *refused;         /* set if the path to it is not clear */
};

/* Opens the image through the layers below.  fd is our own descriptor of the
 * image file, or -1 if it is not a local file; it is taken, even on failure.
 * With export, the image is that one, fd is the file, and the layers below are
 * used only on the threads of connections, when the store is opened and when
 * the path is proven.  Returns NULL (reported) on failure.
 */
struct store *store_switch_open (nbdkit_backend *backend,
                                 const struct export_below *export,
                                 const char *name, int readonly,
                                 bool serialize, int fd);

/* Is what lies below us that local file, unchanged? */
bool store_switch_is_local (const struct store *store);

/* What the engine asks when the image is written to; opaque is the store. */
const char *store_switch_refuse (void *opaque, bool has_data_file);
int store_switch_prove (void *opaque, uint64_t offset, uint64_t length,
                        bool grow, bool *can_grow);

#endif /* QCOW2EXT_STORE_SWITCH_H */
