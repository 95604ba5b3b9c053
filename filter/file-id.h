/* qcow2ext: which file this is.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_FILE_ID_H
#define QCOW2EXT_FILE_ID_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Which file this is, to tell whether two are the same.  A block device is
 * what it leads to, not the node.
 */
struct file_id {
  dev_t dev;
  ino_t ino;
  bool block;
};
struct file_id file_id_of (const struct stat *st);
bool file_id_equal (const struct file_id *a, const struct file_id *b);

#endif /* QCOW2EXT_FILE_ID_H */
