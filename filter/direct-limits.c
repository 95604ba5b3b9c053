/* qcow2ext: what direct I/O demands.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "direct-limits.h"

/* Where nothing says what is demanded. */
#define SAFE_ALIGNMENT 4096

/* More is not believed. */
#define MAX_ALIGNMENT 65536

/* Finds the smallest block that can be read.  A file shorter than a block says
 * nothing.
 */
static int
probe_block (int fd, uint32_t *block)
{
  CLEANUP_FREE void *buf = aligned_alloc (SAFE_ALIGNMENT, SAFE_ALIGNMENT);
  const off_t size = lseek (fd, 0, SEEK_END);

  if (buf == NULL || size == -1)
    return -1;
  *block = SAFE_ALIGNMENT;
  for (uint32_t n = 512; n < SAFE_ALIGNMENT && n <= size; n *= 2) {
    if (pread (fd, buf, n, 0) != -1) {
      *block = n;
      return 0;
    }
    if (errno != EINVAL)
      return -1;
  }
  /* That it takes O_DIRECT does not mean that it can read so. */
  return pread (fd, buf, SAFE_ALIGNMENT, 0) == -1 ? -1 : 0;
}

static bool
is_alignment (uint32_t n)
{
  return n > 0 && (n & (n - 1)) == 0 && n <= MAX_ALIGNMENT;
}

int
direct_limits_find (int fd, struct direct_limits *limits)
{
  struct stat st;
  int sector;

#ifdef STATX_DIOALIGN
  struct statx stx;

  if (statx (fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0
      && (stx.stx_mask & STATX_DIOALIGN)) {
    if (is_alignment (stx.stx_dio_offset_align)
        && is_alignment (stx.stx_dio_mem_align)) {
      limits->block = stx.stx_dio_offset_align;
      limits->memory = stx.stx_dio_mem_align;
      return 0;
    }
    errno = EINVAL;
    return -1;
  }
#endif
  if (fstat (fd, &st) == -1)
    return -1;
  if (S_ISBLK (st.st_mode) && ioctl (fd, BLKSSZGET, &sector) == 0
      && is_alignment (sector))
    limits->block = sector;
  else if (probe_block (fd, &limits->block) == -1)
    return -1;
  limits->memory = limits->block;
  return 0;
}
