/* qcow2ext: a store over the layer below in nbdkit.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_BELOW_H
#define QCOW2EXT_STORE_BELOW_H

#include <nbdkit-filter.h>

#include "base/store.h"

/* Opens a context on the backend and makes a store of it.  With export NULL
 * that is a shared one.  Otherwise it belongs to the caller's connection, which
 * can have one at a time, and is about that export, whose name lives as long.
 * serialize says that the layers below take one request at a time.  Returns
 * NULL (reported) if that fails.
 */
struct store *store_below_open (nbdkit_backend *backend, const char *export,
                                const char *name, int readonly,
                                bool serialize);

#endif /* QCOW2EXT_STORE_BELOW_H */
