/* qcow2ext: what is known of file systems.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_FILE_SYSTEM_H
#define QCOW2EXT_FILE_SYSTEM_H

#include <stdbool.h>

struct file_system {
  /* SEEK_DATA and SEEK_HOLE know what is still in the page cache. */
  bool seek_sees_cache;

  /* Writes to one file wait for each other on a lock of its inode, and for
   * little else: more threads do not get more done.
   */
  bool one_writer;

  /* The times of a file say whether somebody has changed it. */
  bool keeps_times;
};

/* What is known of the file system that a descriptor's file is on. */
struct file_system file_system_of (int fd);

#endif /* QCOW2EXT_FILE_SYSTEM_H */
