/* qcow2ext: a store over our own descriptor.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_FILE_H
#define QCOW2EXT_STORE_FILE_H

#include "base/store.h"
#include "file-id.h"

/* Makes a store of a descriptor of a regular file or a block device.  Takes
 * the descriptor, even if it fails.  Returns NULL with errno set.
 */
struct store *store_file_new (int fd, const char *name);

/* A device that is set read-only lets itself be opened for writing. */
bool store_file_is_readonly_device (const struct store *store);

/* Does the path lead to the file of the store? */
bool store_file_is_at (const struct store *store, const char *path);

/* Which file is it?  Returns 0 or -errno. */
int store_file_id (const struct store *store, struct file_id *id);

/* Another descriptor of the same open file description, to hold its locks; -1
 * with errno set on failure.
 */
int store_file_dup (const struct store *store);

#endif /* QCOW2EXT_STORE_FILE_H */
