/* qcow2ext: a store over another NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_NBD_H
#define QCOW2EXT_STORE_NBD_H

#include "base/store.h"

#ifdef HAVE_LIBNBD

/* Makes a store of what the server at uri offers, for reading only unless
 * writable.  Threads are started.  Returns 0 or -errno (reported).
 */
int store_nbd_open (const char *uri, bool writable, struct store **store);

/* The same without asking the server: nothing can be read from it.  This is
 * for looking at an image before the server starts.
 */
int store_nbd_placeholder (const char *uri, struct store **store);

#endif /* HAVE_LIBNBD */

#endif /* QCOW2EXT_STORE_NBD_H */
