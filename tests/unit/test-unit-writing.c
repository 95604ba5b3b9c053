/* qcow2ext: what a write or a trim does to the files, and what it leaves.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "crash.h"
#include "data/known-holes.h"
#include "image/chain.h"
#include "image/check.h"

#define CLUSTER UINT64_C (512)
#define SIZE (64 * CLUSTER)

static struct memory_file file[MEMORY_FILES];
static struct memory_log record;
static struct files files;
static uint8_t guest[SIZE];
static struct image *image;

static void
begin (const struct image_spec *spec)
{
  memory_log_init (&record);
  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  files = (struct files) {
    .file = file, .log = &record, .write = spec->write,
  };
  CHECK (files_open (&files, true, 0, &image) == 0);
}

static void
end (void)
{
  image_close (image);
  memory_files_free (file);
  memory_log_clear (&record);
}

/* How many operations of a kind there are of a file, from one on. */
static unsigned
count_ops (size_t from, enum memory_kind kind, unsigned which)
{
  unsigned n = 0;

  for (size_t i = from; i < record.count; i++)
    n += record.op[i].kind == kind && record.op[i].file == which;
  return n;
}

/* Zero clusters keep their places, and those side by side are written at
 * once.
 */
static void
test_places (void)
{
  static const struct image_spec spec = {
    .name = "places", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "A",
  };
  size_t n;

  begin (&spec);
  CHECK (image_write (image, guest, CLUSTER, SIZE - CLUSTER) == 0);
  n = record.count;
  CHECK (image_write (image, guest, 8 * CLUSTER, 0) == 0);
  CHECK (count_ops (n, MEMORY_WRITE, MEMORY_IMAGE) == 1);
  end ();
}

/* What a write has taken that fails is free for the next one. */
static void
test_failed_write (void)
{
  static const struct image_spec spec = {
    .name = "failed", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = ".",
  };
  struct check_result result;

  begin (&spec);
  CHECK (image_write (image, guest, CLUSTER, 0) == 0);
  CHECK (image_flush (image) == 0);
  record.fault = (struct memory_fault) {
    .kind = MEMORY_WRITE, .file = MEMORY_IMAGE, .nth = 1, .error = EIO,
  };
  memory_in_engine = true;
  CHECK (image_write (image, guest, CLUSTER, CLUSTER) == -EIO);
  memory_in_engine = false;
  CHECK (image_write (image, guest, CLUSTER, 2 * CLUSTER) == 0);
  CHECK (image_settle (image, false) == 0);
  CHECK (layer_check (image->top, false, &result) == 0);
  CHECK (result.errors == 0 && result.leaks == 0);
  free (result.counts);
  end ();
}

/* A write that fails before it has a place does nothing to the data file. */
static void
test_failed_look_up (void)
{
  static const struct image_spec spec = {
    .name = "look-up", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 64 * SIZE, .map = ".", .external = true, .raw = true,
  };
  static uint8_t large[64 * SIZE];
  size_t n;

  memory_log_init (&record);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], large);
  files = (struct files) { .file = file, .log = &record };
  CHECK (files_open (&files, true, 0, &image) == 0);
  CHECK (image_write (image, large, CLUSTER, 0) == 0);
  n = record.count;
  /* Another table is needed, and has no place. */
  file[MEMORY_IMAGE].limit = file[MEMORY_IMAGE].size;
  CHECK (image_write (image, large, CLUSTER, 32 * SIZE) < 0);
  for (size_t i = n; i < record.count; i++)
    CHECK (record.op[i].file != MEMORY_DATA);
  end ();
}

/* Where a data file is one hole is asked once. */
static struct store_ops counting;
static const struct store_ops *counted;
static unsigned extents;

static int
count_extents (struct store *s, uint64_t offset, uint64_t *stop,
               unsigned *type)
{
  extents++;
  return counted->extent (s, offset, stop, type);
}

static void
test_known_holes (void)
{
  static const struct image_spec spec = {
    .name = "holes", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = SIZE, .map = ".", .external = true, .raw = true,
  };

  begin (&spec);
  counted = image->top->data_file->ops;
  counting = *counted;
  counting.extent = count_extents;
  image->top->data_file->ops = &counting;
  for (uint64_t offset = 0; offset < SIZE; offset += 4096)
    CHECK (image_write (image, guest, CLUSTER, offset) == 0);
  CHECK (extents == 1);
  end ();
}

/* A data file gives back what is trimmed, and keeps what is only zeroed. */
static void
test_trim (void)
{
  static const struct image_spec spec = {
    .name = "trim", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D", .external = true,
  };

  begin (&spec);
  CHECK (image_trim (image, 4 * CLUSTER, 0) == 0);
  CHECK (image_zero (image, 4 * CLUSTER, 4 * CLUSTER, 0) == 0);
  CHECK (image_zero (image, 4 * CLUSTER, 8 * CLUSTER, IMAGE_ZERO_UNMAP) == 0);
  for (unsigned i = 0; i < 16; i++)
    CHECK (file[MEMORY_DATA].full[i] == (i / 4 == 1 || i / 4 == 3));
  end ();
}

/* An encrypted data file ends with a cluster, as what decrypts to nothing in
 * particular would show when the disk is made larger; a device ends where it
 * does.
 */
static void
test_encrypted_end (bool device, uint64_t wanted)
{
  static const struct image_spec spec = {
    .name = "end", .version = 3, .cluster_bits = 12, .refcount_order = 4,
    .size = 2 * 4096 + CLUSTER, .map = ".", .external = true,
    .encrypted = true,
  };

  memory_log_init (&record);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  files = (struct files) {
    .file = file, .log = &record, .data_device = device,
  };
  CHECK (files_open (&files, true, 0, &image) == 0);
  CHECK (image_write (image, guest, CLUSTER, 2 * 4096) == 0);
  CHECK (file[MEMORY_DATA].size == wanted);
  end ();
}

/* Zeros that are detected take no space if the format has a flag for them. */
static int
see (void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
  unsigned *seen = opaque;

  (void) offset, (void) length;
  *seen = type;
  return 1;
}

static void
test_detect (unsigned version, unsigned wanted)
{
  const struct image_spec spec = {
    .name = "detect", .version = version, .cluster_bits = 9,
    .refcount_order = 4, .size = SIZE, .map = ".", .backing = true,
    .write.detect_zeroes = DETECT_ON,
  };
  static const uint8_t zeros[CLUSTER];
  uint8_t buf[CLUSTER];
  unsigned type = 0;

  begin (&spec);
  CHECK (image_write (image, zeros, CLUSTER, 0) == 0);
  CHECK (image_extents (image, CLUSTER, 0, see, &type) == 1);
  CHECK ((type & EXTENT_ZERO) == wanted);
  CHECK (image_read (image, buf, CLUSTER, 0) == 0);
  CHECK (memcmp (buf, zeros, CLUSTER) == 0);
  end ();
}

/* An image that is used is left alone; then it is made durable, each time. */
static void
test_idle (void)
{
  static const struct image_spec spec = {
    .name = "idle", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D",
  };

  begin (&spec);
  for (unsigned i = 0; i < 3; i++) {
    size_t n;

    CHECK (image_write (image, guest, CLUSTER, 0) == 0);
    n = record.count;
    CHECK (image_settle (image, true) == 0);
    CHECK (count_ops (n, MEMORY_FLUSH, MEMORY_IMAGE) == 0);
    CHECK (image_settle (image, true) == 0);
    CHECK (count_ops (n, MEMORY_FLUSH, MEMORY_IMAGE) > 0);
    n = record.count;
    CHECK (image_settle (image, true) == 0);
    CHECK (record.count == n);
  }
  end ();
}

/* Holes are not forgotten while a request adds one. */
static atomic_bool forgotten;

static void *
forget (void *opaque)
{
  known_holes_forget (opaque);
  forgotten = true;
  return NULL;
}

static void
test_lock (void)
{
  struct known_holes h;
  pthread_t thread;

  known_holes_init (&h);
  pthread_mutex_lock (&h.lock);
  CHECK (pthread_create (&thread, NULL, forget, &h) == 0);
  nanosleep (&(struct timespec) { .tv_nsec = 20000000 }, NULL);
  CHECK (!forgotten);
  pthread_mutex_unlock (&h.lock);
  CHECK (pthread_join (thread, NULL) == 0);
  CHECK (forgotten && h.generation == 1);
  known_holes_destroy (&h);
}

int
main (void)
{
  crash_quiet ();
  test_places ();
  test_failed_write ();
  test_failed_look_up ();
  test_known_holes ();
  test_trim ();
  test_encrypted_end (false, 3 * 4096);
  test_encrypted_end (true, 2 * 4096 + CLUSTER);
  test_detect (3, EXTENT_ZERO);
  test_detect (2, 0);
  test_idle ();
  test_lock ();
  return EXIT_SUCCESS;
}
