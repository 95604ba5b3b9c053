/* qcow2ext: where space is looked for when there is none.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The image lies on a device and has filled it.  A request then gets what was
 * let go of and waits for a commit, or what the device has been enlarged by.
 */

#include "build-config.h"

#include <errno.h>
#include <string.h>

#include "check.h"
#include "base/report.h"
#include "crash-workloads.h"

#define CLUSTER UINT64_C (512)
#define REACH (CLUSTER / 8 * CLUSTER) /* of an L2 table */
#define SIZE (4 * REACH)

static const struct image_spec spec = {
  .name = "full", .version = 3, .cluster_bits = 9, .refcount_order = 4,
  .size = SIZE, .map = ".", .backing = true,
};

static uint8_t disk[SIZE];

static unsigned said;

static void
listen (enum report_level level, const char *message)
{
  said += level == REPORT_ERROR && strstr (message, "no cluster is free");
}

/* Writes clusters of the first two tables, from one on, until there is no
 * space.  Returns the first that was not written.
 */
static uint64_t
fill (struct image *image, uint64_t i)
{
  int r;

  while ((r = image_write (image, disk + i * CLUSTER, CLUSTER, i * CLUSTER))
         == 0) {
    i++;
    CHECK (i < 2 * REACH / CLUSTER);
  }
  CHECK (r == -ENOSPC);
  return i;
}

int
main (void)
{
  static uint8_t seen[SIZE];
  struct memory_file file[MEMORY_FILES] = { 0 };
  struct files files = { .file = file, .device = true };
  struct image *image;
  uint64_t i;

  report_set_sink (listen);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  memory_file_resize (&file[MEMORY_IMAGE],
                      file[MEMORY_IMAGE].size + 20 * CLUSTER);
  CHECK (files_open (&files, true, 0, &image) == 0);
  memset (disk, 1, REACH);
  i = fill (image, 0);
  CHECK (i > 10);
  CHECK (fill (image, i) == i);
  CHECK (said == 1);

  /* One cluster more, or an L2 table. */
  CHECK (image_zero (image, CLUSTER, 0, IMAGE_ZERO_UNMAP) == 0);
  CHECK (image_write (image, disk + i * CLUSTER, CLUSTER, i * CLUSTER) == 0);
  CHECK (fill (image, i + 1) == i + 1);
  CHECK (image_zero (image, CLUSTER, 2 * REACH, 0) == -ENOSPC);
  CHECK (image_zero (image, CLUSTER, CLUSTER, IMAGE_ZERO_UNMAP) == 0);
  CHECK (image_zero (image, CLUSTER, 2 * REACH, 0) == 0);
  CHECK (fill (image, i + 1) == i + 1);
  memset (disk, 0, 2 * CLUSTER);
  memset (disk + 2 * REACH, 0, CLUSTER);

  memory_file_resize (&file[MEMORY_IMAGE],
                      file[MEMORY_IMAGE].size + 4 * CLUSTER);
  CHECK (fill (image, i + 1) == i + 5);
  CHECK (said == 2);            /* once after it was enlarged */
  memory_file_resize (&file[MEMORY_IMAGE],
                      file[MEMORY_IMAGE].size + CLUSTER);
  CHECK (image_zero (image, CLUSTER, SIZE - REACH - CLUSTER, 0) == 0);
  CHECK (image_read (image, seen, (i + 5) * CLUSTER, 0) == 0);
  CHECK (memcmp (seen, disk, (i + 5) * CLUSTER) == 0);
  image_close (image);
  memory_files_free (file);
  return EXIT_SUCCESS;
}
