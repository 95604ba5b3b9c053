/* qcow2ext: which extents are data, over the layers of a chain.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <string.h>

#include "check.h"
#include "crash-workloads.h"
#include "data/decoded-cache.h"
#include "disk/format.h"

#define CLUSTER UINT64_C (512)
#define SIZE (UINT64_C (64) << 10)
#define ZEROS (EXTENT_HOLE | EXTENT_ZERO)

static struct memory_file file[MEMORY_FILES];
static enum image_format format_below;
static struct image *image;
static uint8_t disk[SIZE];

static int
open_backing (void *opaque, unsigned depth, const struct store *of,
              const char *name, const char *format, struct store **store,
              enum image_format *as)
{
  (void) opaque, (void) of, (void) name, (void) format;
  *store = depth > 1 ? NULL : store_memory_new (&file[MEMORY_BACKING], NULL,
                                                MEMORY_BACKING, false);
  *as = format_below;
  return 0;
}

static void
open_image (void)
{
  static const struct image_env env = { .open_backing = open_backing };
  struct image_options options = {
    .env = &env, .l2_cache_size = 1 << 20,
    .decoded = decoded_cache_new (1 << 20),
  };

  CHECK (image_open (store_memory_new (&file[MEMORY_IMAGE], NULL,
                                       MEMORY_IMAGE, false), &options,
                     &image) == 0);
  decoded_cache_unref (options.decoded);
}

/* What is expected: up to the end of each extent, its type. */
struct extents {
  uint64_t at;
  struct {
    uint64_t end;
    unsigned type;
  } extent[4];
};

static int
compare (void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
  struct extents *e = opaque;
  unsigned i = 0;

  CHECK (offset == e->at);
  e->at += length;
  while (i < 3 && e->extent[i].end <= offset)
    i++;
  CHECK (type == e->extent[i].type && e->at <= e->extent[i].end);
  return 0;
}

/* As a whole and in parts. */
static void
check_extents (struct extents e)
{
  const uint64_t parts[] = { SIZE, 8192, 3 * CLUSTER, CLUSTER };

  open_image ();
  for (unsigned i = 0; i < 4; i++) {
    e.at = 0;
    while (e.at < SIZE) {
      const uint64_t start = e.at;
      const uint64_t n = SIZE - start < parts[i] ? SIZE - start : parts[i];

      CHECK (image_extents (image, n, start, compare, &e) == 0);
      CHECK (e.at == start + n);
    }
  }
  image_close (image);
  memory_files_free (file);
}

static const struct image_spec above = {
  .name = "above", .version = 3, .cluster_bits = 9, .refcount_order = 4,
  .size = SIZE, .map = ".", .backing = true,
};

/* The table of a lower layer, which is shorter, says something of what lies
 * behind its end.
 */
static void
test_shorter_layer (void)
{
  const struct image_spec below = {
    .name = "below", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 32 << 10, .map = "D",
  };
  const be64 size = be64_make (20 << 10);
  struct memory_file none = { 0 };

  make_image (&above, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  memory_file_free (&file[MEMORY_BACKING]);
  make_image (&below, &file[MEMORY_BACKING], &none, &none, disk);
  memory_file_write (&file[MEMORY_BACKING], &size, sizeof size, 24);
  format_below = IMAGE_QCOW2;
  check_extents ((struct extents) {
      .extent = { { 20 << 10, EXTENT_DATA }, { SIZE, ZEROS } },
    });
}

/* The holes of a raw file count, and those of an image file do not. */
static void
test_holes (void)
{
  struct image_spec data = above;
  const struct memory_op hole = {
    .kind = MEMORY_DISCARD, .offset = 4096, .length = 8192,
  };
  struct memory_file *f = &file[MEMORY_IMAGE];

  make_image (&above, f, &file[MEMORY_DATA], &file[MEMORY_BACKING], disk);
  memory_file_apply (&file[MEMORY_BACKING], &hole);
  format_below = IMAGE_RAW;
  check_extents ((struct extents) {
      .extent = { { 4096, EXTENT_DATA }, { 4096 + 8192, ZEROS },
                  { SIZE * 3 / 4, EXTENT_DATA }, { SIZE, ZEROS } },
    });

  data.map = "D";
  make_image (&data, f, &file[MEMORY_DATA], &file[MEMORY_BACKING], disk);
  memset (f->full + f->size / MEMORY_SECTOR / 2, 0,
          f->size / MEMORY_SECTOR / 4);
  check_extents ((struct extents) { .extent = { { SIZE, EXTENT_DATA } } });
}

/* What has a zero flag is a hole, whatever lies below or in its place. */
static void
test_zeros (void)
{
  struct image_spec zeros = above;

  format_below = IMAGE_RAW;
  for (unsigned i = 0; i < 2; i++) {
    zeros.map = i ? "A" : "Z";
    make_image (&zeros, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
                &file[MEMORY_BACKING], disk);
    check_extents ((struct extents) { .extent = { { SIZE, ZEROS } } });
  }
}

int
main (void)
{
  crash_quiet ();
  test_shorter_layer ();
  test_holes ();
  test_zeros ();
  return EXIT_SUCCESS;
}
