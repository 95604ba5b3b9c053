/* qcow2ext: before the first write an image is made fit for it, or refused.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An image that was not closed is repaired, and called clean only when that is
 * durable.  One that cannot be repaired stays as it is: that is no failure, for
 * nothing was lost.
 */

#include "build-config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "crash.h"

#define CLUSTER UINT64_C (512)
#define SIZE (32 * CLUSTER)
#define FEATURES 72             /* incompatible ones, in the header */
#define DIRTY 1                 /* in the last byte of them */

static struct memory_file file[MEMORY_FILES];
static struct memory_log record;
static struct files files = { .file = file, .log = &record };
static uint8_t guest[SIZE];
static struct image *image;

/* Makes an image with a dirty bit, and perhaps the wrong counts that come with
 * it.
 */
static void
make (bool wrong_counts, bool external)
{
  const struct image_spec spec = {
    .name = "first", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D.", .dirty = wrong_counts,
    .external = external,
  };

  memory_log_init (&record);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  file[MEMORY_IMAGE].bytes[FEATURES + 7] |= DIRTY;
}

static int
first_write (void)
{
  int r;

  CHECK (files_open (&files, true, 0, &image) == 0);
  memory_in_engine = true;
  r = image_write (image, guest, CLUSTER, 0);
  memory_in_engine = false;
  return r;
}

static void
end_session (void)
{
  image_close (image);
  memory_files_free (file);
  memory_log_clear (&record);
}

/* Counts that were right before may be so because an attempt before this one
 * wrote them, and could not flush.
 */
static void
test_repair (bool wrong_counts, bool external)
{
  bool flushed = false, cleaned = false;

  make (wrong_counts, external);
  CHECK (first_write () == 0 && !image_has_failed (image));
  for (size_t i = 0; i < record.count && !cleaned; i++) {
    const struct memory_op *op = &record.op[i];

    if (op->file != MEMORY_IMAGE)
      continue;
    cleaned = op->kind == MEMORY_WRITE && op->offset == FEATURES;
    if (cleaned)
      CHECK (flushed && op->length == 8 && !(op->data[7] & DIRTY));
    if (op->kind != MEMORY_RESIZE && op->offset < file[MEMORY_IMAGE].size)
      flushed = op->kind == MEMORY_FLUSH;
  }
  CHECK (cleaned);
  CHECK (!(file[MEMORY_IMAGE].bytes[FEATURES + 7] & DIRTY));
  end_session ();
}

/* A cluster that is not aligned is not for us to repair. */
static void
test_refused (void)
{
  struct memory_file before = { 0 };
  be64 l1, l2;

  make (true, false);
  memcpy (&l1, file[MEMORY_IMAGE].bytes + 40, sizeof l1);
  memcpy (&l2, file[MEMORY_IMAGE].bytes + be64_get (l1), sizeof l2);
  file[MEMORY_IMAGE].bytes[(be64_get (l2) & 0xffffffffff) + 2 * 8 + 6] |= 1;
  memory_file_copy (&before, &file[MEMORY_IMAGE]);

  CHECK (first_write () == -EROFS);
  CHECK (before.size == file[MEMORY_IMAGE].size);
  CHECK (memcmp (before.bytes, file[MEMORY_IMAGE].bytes, before.size) == 0);
  CHECK (!image_has_failed (image));
  memory_file_free (&before);
  end_session ();
}

/* Counts can be made right, but not a flag that says something else. */
static void
test_wrong_flag (void)
{
  be64 l1;

  make (true, false);
  memcpy (&l1, file[MEMORY_IMAGE].bytes + 40, sizeof l1);
  memcpy (&l1, file[MEMORY_IMAGE].bytes + be64_get (l1), sizeof l1);
  file[MEMORY_IMAGE].bytes[be64_get (l1) & ~QCOW2_COPIED] &= 0x7f;
  CHECK (first_write () == -EROFS);
  CHECK (file[MEMORY_IMAGE].bytes[FEATURES + 7] & DIRTY);
  CHECK (!image_has_failed (image));
  end_session ();
}

/* A raw data file is made as long as the disk; one that is longer stays so. */
static void
test_raw_size (uint64_t size, uint64_t wanted)
{
  const struct image_spec spec = {
    .name = "raw", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D.", .external = true, .raw = true,
  };

  memory_log_init (&record);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  memory_file_resize (&file[MEMORY_DATA], size);
  CHECK (first_write () == 0);
  CHECK (file[MEMORY_DATA].size == wanted);
  end_session ();
}

/* While there is no space for that, no write is done, and each tries again. */
static void
test_raw_no_space (void)
{
  const struct image_spec spec = {
    .name = "raw", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D.", .external = true, .raw = true, .bitmaps = true,
  };

  memory_log_init (&record);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  memory_file_resize (&file[MEMORY_DATA], SIZE / 2);
  file[MEMORY_DATA].limit = SIZE - 1;
  CHECK (first_write () == -ENOSPC);
  CHECK (image_write (image, guest, CLUSTER, 0) == -ENOSPC);
  file[MEMORY_DATA].limit = 0;
  CHECK (image_write (image, guest, CLUSTER, 0) == 0);
  CHECK (file[MEMORY_DATA].size == SIZE);
  end_session ();
}

/* A cluster behind the end of the file into which compressed data reaches gets its
 * count, too: nothing else is put there.
 */
static void
test_behind_end (void)
{
  const uint64_t cluster = 4096, size = 4 * cluster;
  const struct image_spec spec = {
    .name = "behind", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = size, .map = "D...", .dirty = true,
  };
  be64 l1, l2, entry, table, block;
  be16 count;
  uint64_t end;

  memory_log_init (&record);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  memcpy (&l1, file[MEMORY_IMAGE].bytes + 40, sizeof l1);
  memcpy (&l2, file[MEMORY_IMAGE].bytes + be64_get (l1), sizeof l2);
  end = (file[MEMORY_IMAGE].size + cluster - 1) & -cluster;
  memory_file_resize (&file[MEMORY_IMAGE], end);
  entry = be64_make (end | QCOW2_L2_COMPRESSED); /* of one sector */
  memory_file_write (&file[MEMORY_IMAGE], &entry, sizeof entry,
                     (be64_get (l2) & ~QCOW2_COPIED) + sizeof entry);
  CHECK (first_write () == 0);
  CHECK (image_write (image, guest, cluster, 2 * cluster) == 0);
  CHECK (image_flush (image) == 0);
  memcpy (&entry, file[MEMORY_IMAGE].bytes
          + (be64_get (l2) & ~QCOW2_COPIED) + 2 * sizeof entry, sizeof entry);
  CHECK ((be64_get (entry) & QCOW2_L2_OFFSET) != end);
  memcpy (&table, file[MEMORY_IMAGE].bytes + 48, sizeof table);
  memcpy (&block, file[MEMORY_IMAGE].bytes + be64_get (table), sizeof block);
  memcpy (&count, file[MEMORY_IMAGE].bytes + be64_get (block)
          + end / cluster * sizeof count, sizeof count);
  CHECK (be16_get (count) == 1);
  end_session ();
}

/* What fails later is a failure. */
static void
test_failure (void)
{
  make (false, false);
  CHECK (first_write () == 0);
  record.fault = (struct memory_fault) {
    .kind = MEMORY_FLUSH, .file = -1, .nth = 1, .error = EIO,
  };
  memory_in_engine = true;
  CHECK (image_flush (image) < 0);
  memory_in_engine = false;
  CHECK (image_has_failed (image));
  end_session ();
}

int
main (void)
{
  crash_quiet ();
  for (unsigned i = 0; i < 4; i++)
    test_repair (i & 1, i & 2);
  test_refused ();
  test_wrong_flag ();
  test_raw_size (SIZE / 2, SIZE);
  test_raw_size (SIZE + CLUSTER, SIZE + CLUSTER);
  test_raw_no_space ();
  test_behind_end ();
  test_failure ();
  return EXIT_SUCCESS;
}
