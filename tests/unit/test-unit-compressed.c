/* qcow2ext: requests of many compressed clusters.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * They are read and written a batch at a time, with few operations of the image
 * file.  What of a batch cannot be written is given back.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "crash-workloads.h"
#include "disk/format.h"

#define CLUSTER UINT64_C (4096)
#define CLUSTERS 300
#define SIZE (CLUSTERS * CLUSTER)

static struct memory_file file[MEMORY_FILES];
static struct memory_log operations;
static struct files files = { .file = file, .log = &operations };
static struct image *image;
static uint8_t disk[SIZE], seen[SIZE];
static unsigned reads;

static void
count_reads (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  reads += before && op->kind == MEMORY_READ;
}

static void
open_image (const struct image_spec *spec)
{
  files.write = spec->write;
  memory_log_init (&operations);
  operations.hook = count_reads;
  CHECK (files_open (&files, true, 0, &image) == 0);
  reads = 0;
}

static void
close_image (void)
{
  image_close (image);
  memory_log_clear (&operations);
}

/* The image is sound and nothing in it is leaked. */
static void
check_image (void)
{
  struct checker c = { 0 };

  checker_run (&c, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
               &file[MEMORY_BACKING]);
  if (c.errors)
    printf ("%s\n", c.message);
  CHECK (c.errors == 0 && c.leaks == 0);
  CHECK (memcmp (c.guest, disk, SIZE) == 0);
  checker_free (&c);
}

/* What cannot be compressed. */
static void
fill_with_noise (uint8_t *cluster)
{
  uint64_t x = 88172645463325252;

  for (uint64_t i = 0; i < CLUSTER; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    cluster[i] = x;
  }
}

/* What takes half as much. */
static void
fill_with_half_noise (uint8_t *cluster)
{
  fill_with_noise (cluster);
  memset (cluster + CLUSTER / 2, 1, CLUSTER / 2);
}

/* --- reading --- */

/* How many reads a request takes. */
static unsigned
reads_of (uint64_t count, uint64_t offset)
{
  const unsigned before = reads;

  CHECK (image_read (image, seen, count, offset) == 0);
  CHECK (memcmp (seen, disk + offset, count) == 0);
  return reads - before;
}

/* The same for an image of which nothing has been decoded. */
static unsigned
reads_when_new (const struct image_spec *spec, uint64_t count,
                uint64_t offset)
{
  unsigned n;

  open_image (spec);
  n = reads_of (count, offset);
  close_image ();
  return n;
}

static void
test_read (void)
{
  const struct image_spec spec = {
    .name = "compressed", .version = 3, .cluster_bits = 12,
    .refcount_order = 4, .size = SIZE, .map = "C",
  };

  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);

  /* The L2 table, and what lies side by side in batches of 128. */
  CHECK (reads_when_new (&spec, CLUSTER, 0) == 1 + 1);
  CHECK (reads_when_new (&spec, 3 * CLUSTER, CLUSTER) == 1 + 1);
  CHECK (reads_when_new (&spec, 128 * CLUSTER, CLUSTER) == 1 + 1);
  CHECK (reads_when_new (&spec, SIZE, 0) == 1 + 3);

  /* In pieces: the second request for a cluster brings the next one. */
  open_image (&spec);
  CHECK (reads_of (CLUSTER / 2, 0) == 1 + 1);
  CHECK (reads_of (CLUSTER / 2, CLUSTER / 2) == 1);
  CHECK (reads_of (CLUSTER / 2, CLUSTER) == 0);
  CHECK (reads_of (CLUSTER / 2, 2 * CLUSTER) == 1);
  close_image ();
  memory_files_free (file);
}

/* Two groups of clusters, each side by side, with others in between. */
static void
test_groups (void)
{
  const struct image_spec spec = {
    .name = "groups", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = SIZE, .map = ".", .write.compress = true,
  };

  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  open_image (&spec);
  for (unsigned i = 0; i < 8; i++) {
    fill_with_half_noise (disk + i * CLUSTER);
    fill_with_noise (disk + (20 + i) * CLUSTER);
  }
  CHECK (image_write (image, disk, 4 * CLUSTER, 0) == 0);
  CHECK (image_write (image, disk + 20 * CLUSTER, 8 * CLUSTER, 20 * CLUSTER)
         == 0);
  CHECK (image_write (image, disk + 4 * CLUSTER, 4 * CLUSTER, 4 * CLUSTER)
         == 0);
  CHECK (image_flush (image) == 0);
  close_image ();
  CHECK (reads_when_new (&spec, 8 * CLUSTER, 0) == 1 + 2);
  memory_files_free (file);
}

/* --- writing --- */

/* Clusters of which one is more than a batch. */
#define LARGE (UINT64_C (2) << 20)

static void
test_large (void)
{
  const struct image_spec spec = {
    .name = "large", .version = 3, .cluster_bits = 21, .refcount_order = 4,
    .size = 3 * LARGE, .map = ".", .write.compress = true,
  };
  uint8_t *data = malloc (3 * LARGE), *found = calloc (3, LARGE);

  CHECK (data && found);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], data);
  open_image (&spec);
  for (uint64_t i = 0; i < 3 * LARGE; i++)
    data[i] = i >> 10;
  CHECK (image_write (image, data, 3 * LARGE, 0) == 0);
  CHECK (image_read (image, found, 3 * LARGE, 0) == 0);
  CHECK (memcmp (found, data, 3 * LARGE) == 0);
  close_image ();
  CHECK (file[MEMORY_IMAGE].size < 7 * LARGE);
  memory_files_free (file);
  free (data);
  free (found);
}

/* What finds room is written, up to where there is no more. */
static void
test_no_space (void)
{
  const struct image_spec spec = {
    .name = "full", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = SIZE, .map = ".", .write.compress = true,
  };
  uint64_t written = 0;

  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  for (unsigned i = 0; i < 16; i++)
    fill_with_half_noise (disk + i * CLUSTER);
  memory_file_resize (&file[MEMORY_IMAGE],
                      (file[MEMORY_IMAGE].size + CLUSTER - 1) & -CLUSTER);
  memory_file_resize (&file[MEMORY_IMAGE],
                      file[MEMORY_IMAGE].size + 5 * CLUSTER);
  files.device = true;
  open_image (&spec);
  CHECK (image_write (image, disk, 16 * CLUSTER, 0) == -ENOSPC);
  CHECK (image_read (image, seen, 16 * CLUSTER, 0) == 0);
  while (written < 16 * CLUSTER
         && memcmp (seen + written, disk + written, CLUSTER) == 0)
    written += CLUSTER;
  CHECK (written > 4 * CLUSTER && written < 16 * CLUSTER);
  for (uint64_t i = written; i < 16 * CLUSTER; i++)
    CHECK (seen[i] == 0);
  CHECK (image_settle (image, false) == 0);
  close_image ();
  files.device = false;
  memory_files_free (file);
}

/* While clusters are written, other writes to any of them wait. */
static pthread_t other;
static atomic_bool has_begun, is_done;

static void *
write_piece (void *opaque)
{
  static const uint8_t piece[512] = { 1, 2, 3 };

  (void) opaque;
  CHECK (image_write (image, piece, sizeof piece, 3 * CLUSTER) == 0);
  is_done = true;
  return NULL;
}

static void
write_meanwhile (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  if (!before || op->kind != MEMORY_WRITE || has_begun)
    return;
  has_begun = true;
  CHECK (pthread_create (&other, NULL, write_piece, NULL) == 0);
  nanosleep (&(struct timespec) { .tv_nsec = 20000000 }, NULL);
  CHECK (!is_done);
}

static void
test_meanwhile (void)
{
  const struct image_spec spec = {
    .name = "meanwhile", .version = 3, .cluster_bits = 12,
    .refcount_order = 4, .size = SIZE, .map = ".", .write.compress = true,
  };

  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  open_image (&spec);
  memset (disk, 1, 4 * CLUSTER);
  CHECK (image_write (image, disk, CLUSTER, SIZE - CLUSTER) == 0);
  operations.hook = write_meanwhile;
  CHECK (image_write (image, disk, 4 * CLUSTER, 0) == 0);
  CHECK (has_begun && pthread_join (other, NULL) == 0);
  CHECK (image_read (image, seen, 4 * CLUSTER, 0) == 0);
  CHECK (seen[3 * CLUSTER] == 1 && seen[3 * CLUSTER + 2] == 3
         && seen[3 * CLUSTER + 511] == 0 && seen[3 * CLUSTER + 512] == 1);
  close_image ();
  memory_files_free (file);
}

/* A cluster that cannot be compressed, and then others that cannot be written:
 * only their room is given back.
 */
static void
test_failed_write (void)
{
  const struct image_spec spec = {
    .name = "written", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = SIZE, .map = ".", .write.compress = true,
  };
  const size_t count = 8 * CLUSTER;
  uint8_t *data = malloc (count);

  CHECK (data);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  open_image (&spec);
  memset (data, 1, count);
  fill_with_noise (data + CLUSTER);

  /* The first one is compressed, the second one is not. */
  operations.fault = (struct memory_fault) {
    .kind = MEMORY_WRITE, .file = MEMORY_IMAGE, .nth = 3, .error = EIO,
  };
  memset (disk + SIZE - CLUSTER, 1, CLUSTER);
  CHECK (image_write (image, disk + SIZE - CLUSTER, CLUSTER, SIZE - CLUSTER)
         == 0);
  memory_in_engine = true;
  CHECK (image_write (image, data, count, 0) == -EIO);
  memory_in_engine = false;
  CHECK (operations.faults_met == 1);
  memcpy (disk, data, 2 * CLUSTER);
  CHECK (image_read (image, seen, SIZE, 0) == 0);
  CHECK (memcmp (seen, disk, SIZE) == 0);
  CHECK (image_flush (image) == 0);
  close_image ();
  check_image ();
  memory_files_free (file);
  free (data);
}

/* Two batches.  The second one has clusters that cannot be compressed where the
 * first one has others.  All others take little space.
 */
static void
test_mixed (void)
{
  const struct image_spec spec = {
    .name = "mixed", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = SIZE, .map = ".", .write.compress = true,
  };

  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  open_image (&spec);
  memset (disk, 1, SIZE);
  fill_with_noise (disk + 258 * CLUSTER);
  fill_with_noise (disk + 259 * CLUSTER);
  CHECK (image_write (image, disk, SIZE, 0) == 0);
  CHECK (image_flush (image) == 0);
  close_image ();
  check_image ();
  CHECK (file[MEMORY_IMAGE].size < SIZE / 10);
  memory_files_free (file);
}

/* Of its last cluster, the disk has one byte. */
static void
test_last_byte (void)
{
  const struct image_spec spec = {
    .name = "last", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = 8 * CLUSTER, .map = ".", .write.compress = true,
  };
  const be64 size = be64_make (4 * CLUSTER + 1);
  const uint8_t byte = 7;

  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  memory_file_write (&file[MEMORY_IMAGE], &size, sizeof size, 24);
  open_image (&spec);
  CHECK (image_size (image) == be64_get (size));
  CHECK (image_write (image, &byte, 1, 4 * CLUSTER) == 0);
  CHECK (image_read (image, seen, CLUSTER + 1, 3 * CLUSTER) == 0);
  CHECK (seen[CLUSTER - 1] == 0 && seen[CLUSTER] == byte);
  close_image ();
  memory_files_free (file);
}

/* An entry says that its cluster is one that is free.  Nothing lets go of
 * that, so the cluster cannot be written to.
 */
static void
test_unsound_entry (void)
{
  const struct image_spec spec = {
    .name = "unsound", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = SIZE, .map = "D.", .write.compress = true,
  };
  struct memory_file *f = &file[MEMORY_IMAGE];
  uint8_t *data = calloc (2, CLUSTER);
  be64 l1, l2, entry;

  CHECK (data);
  make_image (&spec, f, &file[MEMORY_DATA], &file[MEMORY_BACKING], disk);
  memcpy (&l1, f->bytes + 40, sizeof l1);
  memcpy (&l2, f->bytes + be64_get (l1), sizeof l2);
  memory_file_resize (f, f->size + CLUSTER);
  entry = be64_make ((f->size - CLUSTER) | QCOW2_COPIED);
  memory_file_write (f, &entry, sizeof entry,
                     (be64_get (l2) & QCOW2_L1_OFFSET) + sizeof entry);

  open_image (&spec);
  memset (data, 1, 2 * CLUSTER);
  CHECK (image_write (image, data, 2 * CLUSTER, 0) == -EIO);
  CHECK (image_read (image, seen, CLUSTER, 0) == 0);
  CHECK (memcmp (seen, disk, CLUSTER) == 0);
  close_image ();
  memory_files_free (file);
  free (data);
}

int
main (void)
{
  crash_quiet ();
  test_read ();
  test_groups ();
  test_mixed ();
  test_large ();
  test_no_space ();
  test_meanwhile ();
  test_last_byte ();
  test_failed_write ();
  test_unsound_entry ();
  return EXIT_SUCCESS;
}
