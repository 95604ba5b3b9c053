/* qcow2ext: what is known of file systems.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Both properties are stated for the file systems of which they are known, and
 * denied to all others.  A file system that is not in the table is slower
 * than it could be at worst.  (A list of exceptions would be wrong for the
 * next one: FUSE was recognised, and overlayfs above FUSE was not.)
 *
 * seek_sees_cache: the local file systems look at delayed allocations or into
 * the page cache, and NFS and SMB write back before they ask their server.
 * FUSE (virtiofs included) passes the question on to a server that has not yet
 * seen what was written.  overlayfs passes it on to whatever lies below it.
 *
 * one_writer: the local file systems hold the inode's lock for as long as the
 * data is copied to the page cache.  overlayfs takes that of its own inode as
 * well.  Where a write waits for a server, each thread fewer is a request
 * fewer under way.
 *
 * keeps_times: what asks a server may answer from what it remembers.
 */

#include "build-config.h"

#include <linux/magic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/vfs.h>

#include "file-system.h"

/* Not in every <linux/magic.h>. */
#ifndef SMB2_SUPER_MAGIC
#define SMB2_SUPER_MAGIC 0xfe534d42
#endif
#ifndef CIFS_SUPER_MAGIC
#define CIFS_SUPER_MAGIC 0xff534d42
#endif
#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

#define LOCAL                                                           \
  { .seek_sees_cache = true, .one_writer = true, .keeps_times = true }

static const struct {
  unsigned long magic;
  struct file_system properties;
} table[] = {
  { EXT4_SUPER_MAGIC, LOCAL },
  { XFS_SUPER_MAGIC, LOCAL },
  { BTRFS_SUPER_MAGIC, LOCAL },
  { F2FS_SUPER_MAGIC, LOCAL },
  { TMPFS_MAGIC, LOCAL },
  { NFS_SUPER_MAGIC, { .seek_sees_cache = true } },
  { SMB2_SUPER_MAGIC, { .seek_sees_cache = true } },
  { CIFS_SUPER_MAGIC, { .seek_sees_cache = true } },
  { OVERLAYFS_SUPER_MAGIC, { .one_writer = true } },
};

struct file_system
file_system_of (int fd)
{
  struct statfs fs;

  if (fstatfs (fd, &fs) == 0)
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
      /* f_type is signed, and of 32 bits on some machines. */
      if ((uint32_t) fs.f_type == (uint32_t) table[i].magic)
        return table[i].properties;
  return (struct file_system) { .one_writer = false };
}
