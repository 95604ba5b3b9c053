/* qcow2ext: what one look-up says of a range.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A run does not end where an L2 table does, so that a request for it is one
 * request of the store.
 */

#include "build-config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "crash-workloads.h"
#include "image/chain.h"
#include "map/mapping.h"

#define CLUSTER UINT64_C (512)
#define REACH (CLUSTER / 8 * CLUSTER) /* of an L2 table */
#define SIZE (4 * REACH)

static struct memory_file file[MEMORY_FILES];
static struct memory_log changes;
static uint8_t guest[SIZE], seen[SIZE];
static unsigned reads;

static void
count_reads (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  reads += op->kind == MEMORY_READ && op->file == MEMORY_DATA && before;
}

/* The disk is of one kind. */
static void
test (char what, enum run_type type, bool external)
{
  const char map[] = { what, '\0' };
  const struct image_spec spec = {
    .name = "runs", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = map, .external = external,
  };
  static struct files files = { .file = file, .log = &changes };
  struct image *image;
  struct run run;

  memory_log_init (&changes);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  CHECK (files_open (&files, true, 0, &image) == 0);
  memory_in_engine = false;
  mapping_lookup (image->top, CLUSTER / 2, SIZE - CLUSTER, &run);
  CHECK (run.type == type && run.length == SIZE - CLUSTER);

  changes.hook = count_reads;
  reads = 0;
  CHECK (image_read (image, seen, SIZE, 0) == 0);
  CHECK (memcmp (seen, guest, SIZE) == 0);
  CHECK (reads == (type == RUN_DATA));
  changes.hook = NULL;

  /* One cluster of another kind. */
  if (type == RUN_DATA)
    CHECK (image_zero (image, CLUSTER, 2 * REACH + 9 * CLUSTER, 0) == 0);
  else
    CHECK (image_write (image, guest, CLUSTER, 2 * REACH + 9 * CLUSTER) == 0);
  mapping_lookup (image->top, CLUSTER, SIZE - CLUSTER, &run);
  CHECK (run.type == type && run.length == 2 * REACH + 8 * CLUSTER);
  image_close (image);
  memory_log_clear (&changes);
  memory_files_free (file);
}

int
main (void)
{
  crash_quiet ();
  for (unsigned external = 0; external < 2; external++) {
    test ('.', RUN_UNALLOCATED, external);
    test ('Z', RUN_ZERO, external);
  }
  test ('D', RUN_DATA, true);
  return EXIT_SUCCESS;
}
