/* qcow2ext: files of which changes were lost.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_FAILURES_H
#define QCOW2EXT_FAILURES_H

#include <stdbool.h>
#include <sys/stat.h>

#include "file-id.h"

/* Which file an image was opened from.  Another file that has got its inode
 * number has another generation, where the file system knows such a thing.
 */
struct image_key {
  bool is_known;                /* false: the image is not a local file */
  struct file_id id;
  int generation;
};

/* fd may be -1: it is not a local file. */
struct image_key image_key_of (int fd, const struct stat *st);
bool image_key_equal (const struct image_key *a, const struct image_key *b);

/* Notes that changes of the image were lost.  Until the server ends, it is
 * opened only for reading, and has_failed (see served-image.h), under
 * whatever name.
 */
void failures_add (const struct image_key *key);
bool failures_has (const struct image_key *key);
void failures_free (void);

#endif /* QCOW2EXT_FAILURES_H */
