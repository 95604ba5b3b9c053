/* qcow2ext: what lies around the data of a request.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A write that gives a cluster its place writes the rest of the cluster, too; a
 * request to zero a part of one may zero all of it.  What is around stays what
 * it was, and is written once.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "crash-workloads.h"
#include "data/writer.h"
#include "image/chain.h"
#include "map/mapping.h"

static struct memory_file file[MEMORY_FILES];
static struct memory_log operations;
static struct files files = { .file = file, .log = &operations };
static struct image *image;
static uint8_t *disk;           /* what the guest should see */
static uint64_t size;

static void
make (const struct image_spec *spec)
{
  size = spec->size;
  disk = malloc (size);
  CHECK (disk);
  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
}

static void
open_image (void)
{
  memory_log_init (&operations);
  CHECK (files_open (&files, true, 0, &image) == 0);
}

static void
write_disk (int byte, uint64_t count, uint64_t offset)
{
  memset (disk + offset, byte, count);
  CHECK (image_write (image, disk + offset, count, offset) == 0);
}

static void
check_disk (void)
{
  uint8_t *seen = malloc (size);

  CHECK (seen);
  CHECK (image_read (image, seen, size, 0) == 0);
  CHECK (memcmp (seen, disk, size) == 0);
  free (seen);
}

static void
end (void)
{
  check_disk ();
  image_close (image);
  memory_log_clear (&operations);
  memory_files_free (file);
  free (disk);
}

/* --- writing --- */

/* More than is put together in memory. */
static void
test_large (void)
{
  const struct image_spec spec = {
    .name = "large", .version = 3, .cluster_bits = 21, .refcount_order = 4,
    .size = 8 << 20, .map = ".", .backing = true,
  };

  make (&spec);
  open_image ();
  write_disk (1, 4 << 20, 1 << 20);
  end ();
}

/* An encrypted data file that ends before the cluster does not hold zeros
 * there.
 */
static void
test_encrypted (void)
{
  const struct image_spec spec = {
    .name = "encrypted", .version = 3, .cluster_bits = 12,
    .refcount_order = 4, .size = 64 << 10, .map = ".", .external = true,
    .encrypted = true, .short_data = true,
  };

  make (&spec);
  open_image ();
  write_disk (1, 512, 20 << 10);
  write_disk (2, 512, (32 << 10) + 1024);
  end ();
}

/* A write that fails after all, or half, of it has landed in a data file that
 * is the disk: this shows zeros again, as the image does.
 */
static void
test_failed (int landed)
{
  const struct image_spec spec = {
    .name = "failed", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = 64 << 10, .map = ".", .external = true, .raw = true,
  };
  const uint8_t data[4096] = { [0 ... 4095] = 1 };

  make (&spec);
  open_image ();
  write_disk (2, 4096, 0);
  operations.fault = (struct memory_fault) {
    .kind = MEMORY_WRITE, .file = MEMORY_DATA, .nth = 1, .error = EIO,
    .landed = landed,
  };
  memory_in_engine = true;
  CHECK (image_write (image, data, sizeof data, 8192) == -EIO);
  memory_in_engine = false;
  CHECK (operations.faults_met == 1);
  CHECK (file[MEMORY_DATA].size == size);
  CHECK (memcmp (file[MEMORY_DATA].bytes, disk, size) == 0);
  end ();
}

/* Only what was written goes to a data file that reads as zeros around it. */
static void
test_sparse (void)
{
  const struct image_spec spec = {
    .name = "sparse", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = 64 << 10, .map = ".", .external = true,
  };
  uint64_t written = 0;

  make (&spec);
  open_image ();
  write_disk (1, 512, 8192 + 1024);
  write_disk (1, 512, 16384);
  for (size_t i = 0; i < operations.count; i++)
    if (operations.op[i].file == MEMORY_DATA)
      written += operations.op[i].length;
  CHECK (written == 2 * 512);
  end ();
}

/* Behind the disk, a cluster holds zeros: the disk may be made larger. */
static void
test_behind_disk (void)
{
  const struct image_spec spec = {
    .name = "behind", .version = 3, .cluster_bits = 16, .refcount_order = 4,
    .size = 40 << 10, .map = ".", .backing = true,
  };
  const uint8_t *cluster;
  struct run run;

  make (&spec);
  open_image ();
  write_disk (1, 512, 1024);
  mapping_lookup (image->top, 0, 512, &run);
  CHECK (run.type == RUN_DATA);
  CHECK (run.host + (64 << 10) <= file[MEMORY_IMAGE].size);
  cluster = file[MEMORY_IMAGE].bytes + run.host;
  for (unsigned i = spec.size; i < 64 << 10; i++)
    CHECK (cluster[i] == 0);
  end ();
}

/* --- a write in place that comes late --- */

/* The cluster that is written to is zeroed and let go of, and the data file is
 * found to have a hole there.
 */
static void
zero_meanwhile (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  if (!before || op->kind != MEMORY_WRITE || op->file != MEMORY_DATA)
    return;
  operations.hook = NULL;
  CHECK (image_zero (image, 4096, 4096, IMAGE_ZERO_UNMAP) == 0);
  write_disk (1, 512, 0);
}

static void
test_late (void)
{
  const struct image_spec spec = {
    .name = "late", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = 64 << 10, .map = ".D......", .external = true,
  };
  uint8_t data[512];

  make (&spec);
  memset (data, 2, sizeof data);
  open_image ();
  operations.hook = zero_meanwhile;
  CHECK (image_write (image, data, sizeof data, 4096 + 512) == 0);
  CHECK (operations.hook == NULL);
  memset (disk + 4096, 0, 4096);
  write_disk (3, 512, 4096 + 2048);
  end ();
}

/* --- two that write to a cluster that has no place --- */

static pthread_t second;
static bool begun;

static void *
write_second (void *opaque)
{
  (void) opaque;
  CHECK (image_write (image, disk + 2048, 512, 2048) == 0);
  return NULL;
}

static long
requests_that_change (void)
{
  const struct epochs *e = &image->top->writer->changes;
  long n = 0;

  for (size_t i = 0; i < BRLOCK_SLOTS; i++)
    n += e->slot[i].count[0] + e->slot[i].count[1];
  return n;
}

/* While the first one writes, the second one begins, and has found that the
 * cluster has no place when it counts itself among those that change entries.
 */
static void
begin_second (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  if (begun || !before || op->kind != MEMORY_WRITE || op->length != 4096)
    return;
  begun = true;
  CHECK (pthread_create (&second, NULL, write_second, NULL) == 0);
  while (requests_that_change () < 2)
    sched_yield ();
}

/* The second one then finds it placed, and writes what it was given: what is
 * around may meanwhile be written to in place.
 */
static void
test_two (void)
{
  const struct image_spec spec = {
    .name = "two", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = 64 << 10, .map = ".", .backing = true,
  };
  size_t from;

  make (&spec);
  open_image ();
  write_disk (1, 512, 16 << 10); /* the table is there */
  memset (disk + 2048, 2, 512);
  from = operations.count;
  operations.hook = begin_second;
  write_disk (3, 512, 0);
  CHECK (begun);
  pthread_join (second, NULL);
  operations.hook = NULL;
  CHECK (operations.count == from + 2);
  CHECK (operations.op[from].length == 4096);
  CHECK (operations.op[from + 1].length == 512);
  end ();
}

/* --- zeroing --- */

/* A sector of a cluster of which the rest is a hole of the backing file, and
 * one of a cluster of zeros: entries change at most, and nothing is written.
 */
static void
test_zero (void)
{
  const struct image_spec spec = {
    .name = "zero", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = 64 << 10, .map = ".....DZ", .backing = true,
  };
  const uint64_t cluster = 4096, at = 3 * cluster;
  const struct memory_op hole = {
    .kind = MEMORY_DISCARD, .offset = at, .length = cluster,
  };
  size_t from;

  make (&spec);
  memory_file_apply (&file[MEMORY_BACKING], &hole);
  memset (disk + at, 0, cluster);
  memset (file[MEMORY_BACKING].bytes + at + 1024, 1, 512);
  file[MEMORY_BACKING].full[(at + 1024) / 512] = 1;
  open_image ();
  write_disk (1, 512, 0);
  from = operations.count;
  CHECK (image_zero (image, 512, at + 1024, 0) == 0);
  CHECK (image_zero (image, 512, 6 * cluster + 1024, 0) == 0);
  CHECK (operations.count == from);
  end ();
}

/* Space is given back only if that was asked for. */
static void
test_zero_disk (void)
{
  const struct image_spec spec = {
    .name = "zero-disk", .version = 3, .cluster_bits = 12,
    .refcount_order = 4, .size = 64 << 10, .map = "D", .external = true,
    .raw = true,
  };
  const struct memory_op *op;

  make (&spec);
  open_image ();
  CHECK (image_zero (image, 4096, 0, 0) == 0);
  op = &operations.op[operations.count - 1];
  CHECK (op->file == MEMORY_DATA && op->kind == MEMORY_ZERO);
  CHECK (image_zero (image, 4096, 4096, IMAGE_ZERO_UNMAP) == 0);
  op = &operations.op[operations.count - 1];
  CHECK (op->file == MEMORY_DATA && op->kind == MEMORY_DISCARD);
  memset (disk, 0, 8192);
  end ();
}

int
main (void)
{
  alarm (60);                   /* what waits for ever has failed */
  crash_quiet ();
  test_large ();
  test_encrypted ();
  test_failed (1);
  test_failed (2);
  test_sparse ();
  test_behind_disk ();
  test_late ();
  test_two ();
  test_zero ();
  test_zero_disk ();
  return EXIT_SUCCESS;
}
