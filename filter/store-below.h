/* qcow2ext: a store over the layer below in nbdkit.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_BELOW_H
#define QCOW2EXT_STORE_BELOW_H

#include <nbdkit-filter.h>

#include "base/store.h"

/* Opens a shared context on the backend and makes a store of it.  serialize
 * says that the layers below take one request at a time.  Returns NULL
 * (reported) if that fails.
 */
struct store *store_below_open (nbdkit_backend *backend, const char *name,
                                int readonly, bool serialize);

#endif /* QCOW2EXT_STORE_BELOW_H */
