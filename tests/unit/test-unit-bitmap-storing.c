/* qcow2ext: when bitmaps are stored, and what is said when they cannot be.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The image is settled, as the idle thread does, while a request is under way.
 * If that reads, the bitmaps are stored; if it changes something, they are not.
 * Without space, a message names the bitmap and does not say that data is lost.
 * Without memory, one bitmap misses a change, of which the log is told once.
 * A bitmap that is all ones has nothing to be stored, those after it have.
 */

#include "build-config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash-workloads.h"
#include "base/report.h"
#include "disk/format.h"

static struct image *image;
static struct memory_file file[MEMORY_FILES];
static unsigned failures;

/* Settling starts at the next operation of this kind in this file. */
static enum memory_kind waited_for;
static unsigned waited_in;
static bool met;

static void
settle_meanwhile (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  if (met || !before || op->kind != waited_for || op->file != waited_in)
    return;
  met = true;
  for (unsigned i = 0; i < 3; i++)
    if (image_settle (image, true) < 0)
      abort ();
}

/* How many bitmaps that record are marked as in use? */
static unsigned
marked (void)
{
  struct checker c = { 0 };
  unsigned n = 0;

  checker_run (&c, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
               &file[MEMORY_BACKING]);
  if (c.errors) {
    printf ("FAIL: %s\n", c.message);
    failures++;
  }
  for (unsigned i = 0; i < c.bitmaps; i++)
    n += (c.bitmap[i].flags & QCOW2_BITMAP_AUTO)
      && (c.bitmap[i].flags & QCOW2_BITMAP_IN_USE);
  checker_free (&c);
  return n;
}

static void
expect (const char *name, const char *what, bool ok)
{
  if (ok)
    return;
  printf ("FAIL: %s: %s\n", name, what);
  failures++;
}

static void
run (const char *name)
{
  const struct image_spec *spec = crash_spec (name);
  struct files files = { .file = file, .write = spec->write };
  struct memory_log log = { 0 };
  uint8_t *disk = malloc (spec->size);
  unsigned at_first;

  if (disk == NULL)
    abort ();
  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  at_first = marked ();
  memory_log_init (&log);
  files.log = &log;
  if (files_open (&files, true, 0, &image) < 0
      || image_write (image, disk, 4096, 0) < 0)
    abort ();
  expect (name, "a change does not mark the bitmaps", marked () > at_first);

  waited_in = spec->external ? MEMORY_DATA : MEMORY_IMAGE;
  waited_for = MEMORY_READ;
  met = false;
  log.hook = settle_meanwhile;
  if (image_read (image, disk, 4096, 0) < 0)
    abort ();
  expect (name, "nothing is read", met);
  expect (name, "bitmaps are not stored beside a read",
          marked () == at_first);

  /* In the image file, a write may be that of the mark. */
  if (spec->external) {
    waited_for = MEMORY_WRITE;
    met = false;
    if (image_write (image, disk, 4096, 0) < 0)
      abort ();
    expect (name, "nothing is written", met);
    expect (name, "bitmaps are stored beside a change", marked () > at_first);
  }

  log.hook = NULL;
  image_close (image);
  memory_files_free (file);
  memory_log_clear (&log);
  free (disk);
}

/* --- memory --- */

/* The next allocation of this size fails; 0: none does. */
static size_t no_memory_for;

void *__real_calloc (size_t n, size_t size);
void *__wrap_calloc (size_t n, size_t size);

void *
__wrap_calloc (size_t n, size_t size)
{
  if (no_memory_for && n * size == no_memory_for) {
    no_memory_for = 0;
    return NULL;
  }
  return __real_calloc (n, size);
}

static unsigned missed;

static void
count_missed (enum report_level level, const char *message)
{
  missed += level == REPORT_WARNING && strstr (message, "has missed changes");
}

static void
run_lost (void)
{
  const char *name = "bitmaps";
  const struct image_spec *spec = crash_spec (name);
  struct files files = { .file = file, .write = spec->write };
  struct memory_log log = { 0 };
  uint8_t *disk = malloc (spec->size);
  unsigned at_first;

  if (disk == NULL)
    abort ();
  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  at_first = marked ();
  memory_log_init (&log);
  files.log = &log;
  if (files_open (&files, true, 0, &image) < 0
      || image_zero (image, 512, 0, 0) < 0 /* the tables are there */
      || image_settle (image, false) < 0)
    abort ();
  report_set_sink (count_missed);
  no_memory_for = 1 << spec->cluster_bits;
  for (unsigned i = 0; i < 3; i++) {
    if (image_zero (image, 512, 0, 0) < 0 || image_settle (image, false) < 0)
      abort ();
    expect (name, "there was memory", no_memory_for == 0);
    expect (name, "what was missed is not said once", missed == 1);
    expect (name, "not one bitmap is inconsistent",
            marked () == at_first + 1);
  }
  crash_quiet ();
  image_close (image);
  memory_files_free (file);
  memory_log_clear (&log);
  free (disk);
}

/* --- all ones --- */

/* Bitmap "c" is all ones; "d" (600 of them) is made to record. */
static void
run_ones (void)
{
  const char *name = "bitmaps";
  const struct image_spec *spec = crash_spec (name);
  struct files files = { .file = file, .write = spec->write };
  uint8_t *disk = malloc (spec->size), *found;
  struct checker c = { 0 };

  if (disk == NULL)
    abort ();
  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  found = memmem (file[MEMORY_IMAGE].bytes, file[MEMORY_IMAGE].size,
                  "dddddddd", 8);
  if (found == NULL)
    abort ();
  found[-24 + 15] |= QCOW2_BITMAP_AUTO;
  if (files_open (&files, true, 0, &image) < 0
      || image_write (image, disk, 512, 40 * 512) < 0
      || image_settle (image, false) < 0)
    abort ();
  checker_run (&c, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
               &file[MEMORY_BACKING]);
  expect (name, c.message, c.errors == 0 && c.bitmaps == MAKER_BITMAPS);
  for (unsigned i = 0; i < 4; i++) {
    expect (name, "a bitmap stays in use",
            c.bitmap[i].flags == QCOW2_BITMAP_AUTO);
    expect (name, "a bitmap misses a change",
            c.bitmap[i].bits[40 * 512 / c.bitmap[i].granule]);
    expect (name, "a bitmap says too much", (i == 2) == c.bitmap[i].bits[30]);
  }
  checker_free (&c);
  image_close (image);
  memory_files_free (file);
  free (disk);
}

/* --- a larger disk --- */

/* Bitmap "a" has a cluster of bits for each 2 MiB: what is written is recorded,
 * across their boundaries, too, and nothing else is.
 */
#define LARGE (UINT64_C (5) << 20)

static void
run_large (void)
{
  const struct image_spec spec = {
    .name = "large", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = LARGE, .map = ".", .bitmaps = true,
  };
  static const struct {
    uint64_t offset, count;
  } writes[] = {
    { 0, 512 }, { (2 << 20) - 1024, 4096 }, { (4 << 20) + 512, 512 },
    { LARGE - 512, 512 },
  };
  struct files files = { .file = file };
  uint8_t *disk = malloc (LARGE), *wanted = calloc (1, LARGE / 512);
  struct checker c = { 0 };

  if (disk == NULL || wanted == NULL)
    abort ();
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  if (files_open (&files, true, 0, &image) < 0)
    abort ();
  for (unsigned i = 0; i < sizeof writes / sizeof writes[0]; i++) {
    if (image_write (image, disk, writes[i].count, writes[i].offset) < 0)
      abort ();
    memset (wanted + writes[i].offset / 512, 1, writes[i].count / 512);
  }
  if (image_settle (image, false) < 0)
    abort ();
  checker_run (&c, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
               &file[MEMORY_BACKING]);
  expect (spec.name, c.message, c.errors == 0 && c.bitmaps == MAKER_BITMAPS);
  expect (spec.name, "not what was written is recorded",
          c.bitmap[0].granule == 512
          && memcmp (c.bitmap[0].bits, wanted, LARGE / 512) == 0);
  checker_free (&c);
  image_close (image);
  memory_files_free (file);
  free (disk);
  free (wanted);
}

/* --- without space --- */

static char said[2000];

static void
listen (enum report_level level, const char *message)
{
  if (level == REPORT_ERROR && said[0] == '\0')
    snprintf (said, sizeof said, "%s", message);
}

/* Bitmap "a" (600 of them) needs a cluster, and the file cannot grow. */
static void
run_full (void)
{
  const char *name = "bitmaps-pair";
  const struct image_spec *spec = crash_spec (name);
  struct files files = { .file = file, .write = spec->write };
  struct memory_log log = { 0 };
  uint8_t *disk = malloc (spec->size);

  if (disk == NULL)
    abort ();
  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  memory_log_init (&log);
  files.log = &log;
  if (files_open (&files, true, 0, &image) < 0
      || image_write (image, disk, 4096, 0) < 0)
    abort ();
  file[MEMORY_IMAGE].limit = file[MEMORY_IMAGE].size;
  report_set_sink (listen);
  expect (name, "settling succeeds without space",
          image_settle (image, false) == -ENOSPC);
  expect (name, said[0] ? said : "nothing is said",
          strstr (said, "bitmap \"aaaaaa") && strstr (said, "cannot be stored")
          && strstr (said, "data that was written is on disk")
          && !strstr (said, "may not be"));
  file[MEMORY_IMAGE].limit = 0;
  said[0] = '\0';
  expect (name, "settling fails with space",
          image_settle (image, false) == 0);
  expect (name, said, said[0] == '\0');
  crash_quiet ();

  image_close (image);
  memory_files_free (file);
  memory_log_clear (&log);
  free (disk);
}

int
main (void)
{
  crash_quiet ();
  run_full ();
  run_lost ();
  run_ones ();
  run_large ();
  run ("bitmaps");
  run ("bitmaps-pair");
  run ("bitmaps-raw");
  printf ("%u failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
