/* qcow2ext: an image that fills its device.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * What has a place can be written to.  What needs a new one waits until the
 * device has been enlarged, and is tried again then.
 */

#include "build-config.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "crash.h"

#define CLUSTER UINT64_C (512)
#define SIZE (32 * CLUSTER)

int
main (void)
{
  /* Its first bitmap has no bits on disk, until there are some. */
  static const struct image_spec spec = {
    .name = "full", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D.", .bitmaps = true,
  };
  struct memory_file file[MEMORY_FILES] = { 0 };
  struct files files = { .file = file, .device = true };
  static uint8_t guest[SIZE];
  struct image *image;
  int r = -ENOSPC;

  crash_quiet ();
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  memory_file_resize (&file[MEMORY_IMAGE],
                      (file[MEMORY_IMAGE].size + CLUSTER - 1) & -CLUSTER);
  CHECK (files_open (&files, true, 0, &image) == 0);
  CHECK (image_write (image, guest, CLUSTER, CLUSTER) == -ENOSPC);
  CHECK (image_write (image, guest, CLUSTER, 0) == 0);
  CHECK (image_settle (image, false) == -ENOSPC);
  memory_file_resize (&file[MEMORY_IMAGE],
                      file[MEMORY_IMAGE].size + 32 * CLUSTER);
  for (unsigned i = 0; i < 2 && r == -ENOSPC; i++)
    r = image_settle (image, false);
  CHECK (r == 0);
  CHECK (image_write (image, guest, CLUSTER, CLUSTER) == 0);
  image_close (image);
  memory_files_free (file);
  return EXIT_SUCCESS;
}
