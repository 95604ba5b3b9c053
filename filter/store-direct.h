/* qcow2ext: a store that goes past the page cache.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_DIRECT_H
#define QCOW2EXT_STORE_DIRECT_H

#include "base/store.h"
#include "direct-limits.h"

/* Makes a store of which any range can be read and written.  direct gets only
 * aligned requests.  cached leads to the same file through the page cache, and
 * gets what is left at the end of a file whose size is no multiple of the
 * block; NULL: nothing will be written.  Takes both, even if it fails.
 * Returns NULL with errno set.
 */
struct store *store_direct_new (struct store *direct, struct store *cached,
                                const struct direct_limits *limits);

/* The same for a descriptor of a regular file or block device, which is taken
 * even on failure, and becomes one for direct I/O.  Returns NULL with errno
 * set: EINVAL if the file system does not have direct I/O.
 */
struct store *store_direct_open (int fd, const char *name);

/* The store of the descriptor that was given to store_direct_open; or, of any
 * other store, itself.
 */
struct store *store_direct_file (struct store *store);

#endif /* QCOW2EXT_STORE_DIRECT_H */
