/* qcow2ext: which file this is.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "file-id.h"

struct file_id
file_id_of (const struct stat *st)
{
  if (S_ISBLK (st->st_mode))
    return (struct file_id) { .dev = st->st_rdev, .block = true };
  return (struct file_id) { .dev = st->st_dev, .ino = st->st_ino };
}

bool
file_id_equal (const struct file_id *a, const struct file_id *b)
{
  return a->dev == b->dev && a->ino == b->ino && a->block == b->block;
}
