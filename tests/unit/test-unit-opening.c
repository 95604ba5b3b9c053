/* qcow2ext: what an image is opened with, and what that tells.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Options that are asked for are done and do not keep others from being done;
 * messages say what is wrong, once, and nothing if nothing is.
 */

#include "build-config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "check.h"
#include "data/decoded-cache.h"
#include "image/image.h"
#include "image-maker.h"
#include "store-memory.h"
#include "toy-cipher.h"

#define CLUSTER UINT64_C (512)
#define SIZE (64 * CLUSTER)
#define ENTRY 64                /* bytes of the snapshot's table */

static const struct image_spec plain = {
  .name = "plain", .version = 3, .cluster_bits = 9, .refcount_order = 4,
  .size = SIZE, .map = "D",
};

/* --- what the engine says --- */

static unsigned warnings, errors;
static char last[512];          /* of the messages */

static void
sink (enum report_level level, const char *message)
{
  snprintf (last, sizeof last, "%s", message);
  warnings += level == REPORT_WARNING;
  errors += level == REPORT_ERROR;
}

/* --- the image, and its surroundings --- */

static struct memory_file image_file, data_file, backing_file;
static bool has_qcow2_below;    /* the backing file is a qcow2 image */
static struct memory_log record;
static uint8_t guest[SIZE];

static int
open_backing (void *opaque, unsigned depth, const struct store *of,
              const char *name, const char *format, struct store **store,
              enum image_format *as)
{
  (void) opaque, (void) of, (void) name, (void) format;
  *as = IMAGE_QCOW2;
  *store = has_qcow2_below && depth == 0
    ? store_memory_new (&backing_file, NULL, MEMORY_BACKING, false) : NULL;
  return 0;
}

static const char *
refuse (void *opaque, bool has_data_file)
{
  (void) opaque, (void) has_data_file;
  return NULL;
}

static const char *data_name = "data";

/* The data file cannot grow. */
static int
open_data (void *opaque, unsigned depth, const struct store *of,
           const char *name, struct store **store)
{
  (void) opaque, (void) depth, (void) of, (void) name;
  *store = store_memory_new (&data_file, NULL, MEMORY_DATA, false);
  (*store)->fixed_size = true;
  free ((*store)->name);
  (*store)->name = strdup (data_name);
  CHECK ((*store)->name != NULL);
  return 0;
}

static const struct image_env env = {
  .open_data = open_data, .open_backing = open_backing,
  .open_encrypted = toy_open_encrypted,
};
static const struct image_write_env write_env = { .refuse = refuse };

static void
make (const struct image_spec *spec)
{
  memory_file_free (&image_file);
  memory_file_free (&data_file);
  make_image (spec, &image_file, &data_file, &backing_file, guest);
}

/* Opens what was made.  Nothing is written. */
static int
open_with (struct image_options options, struct image **image)
{
  struct decoded_cache *decoded = decoded_cache_new (1 << 20);
  int r;

  warnings = errors = 0;
  options.env = &env;
  options.l2_cache_size = 1 << 20;
  options.decoded = decoded;
  memory_in_engine = true;
  r = image_open (store_memory_new (&image_file, &record, MEMORY_IMAGE, false),
                  &options, image);
  memory_in_engine = false;
  decoded_cache_unref (decoded);
  return r;
}

static bool
is_writable_with (struct image_options options)
{
  struct image *image;
  bool writable;

  options.write_env = &write_env;
  CHECK (open_with (options, &image) == 0);
  writable = image_is_writable (image);
  image_close (image);
  return writable;
}

/* --- tests --- */

static void
test_check (void)
{
  struct image_spec spec = plain;

  make (&plain);
  CHECK (is_writable_with ((struct image_options) { .check = true }));
  spec.dirty = true;            /* and its counts are wrong */
  make (&spec);
  CHECK (is_writable_with ((struct image_options) { 0 }));
  CHECK (warnings == 0);
  CHECK (!is_writable_with ((struct image_options) { .check = true }));
}

static void
test_encryption (void)
{
  struct image_spec spec = plain;
  const struct image_options options = { .want_encryption = true };
  struct image *image;

  make (&plain);
  CHECK (open_with (options, &image) == -EINVAL && errors == 1);
  spec.encrypted = true;
  make (&spec);
  CHECK (is_writable_with (options));
}

static void
test_dirty (void)
{
  struct image_spec spec = plain;
  struct image *image;

  for (unsigned dirty = 0; dirty < 2; dirty++) {
    spec.dirty = dirty;
    make (&spec);
    CHECK (open_with ((struct image_options) { .warn = true }, &image) == 0);
    CHECK (warnings == dirty && errors == 0);
    image_close (image);
  }
}

/* A device has to be as large as the disk. */
static void
test_data_file (void)
{
  struct image_spec spec = plain;
  struct image *image;

  spec.external = true;
  make (&spec);
  CHECK (open_with ((struct image_options) { 0 }, &image) == 0);
  image_close (image);
  memory_file_resize (&data_file, SIZE - 1);
  CHECK (open_with ((struct image_options) { 0 }, &image) == -EINVAL);
  CHECK (errors == 1);
}

/* A data file that is given must be of use to the image that is served. */
static void
test_useless_data_file (void)
{
  const struct image_options options = { .want_data_file = true };
  struct image_spec spec = plain;
  struct image *image;

  make (&plain);
  CHECK (open_with (options, &image) == -EINVAL && errors == 1);
  CHECK (strstr (last, "does not use one"));

  spec.external = true;
  make (&spec);
  make_image (&plain, &backing_file, NULL, NULL, guest);
  has_qcow2_below = true;
  CHECK (open_with (options, &image) == 0 && errors == 0);
  image_close (image);
  has_qcow2_below = false;
  memory_file_free (&backing_file);
}

/* What the image does not have is read through the tables of the one below. */
static void
test_chain (void)
{
  struct image_spec empty = plain;
  struct image *image;
  static uint8_t buf[SIZE];

  empty.map = ".";
  make (&empty);
  make_image (&plain, &backing_file, NULL, NULL, guest);
  has_qcow2_below = true;
  CHECK (open_with ((struct image_options) { 0 }, &image) == 0);
  CHECK (image_read (image, buf, SIZE, 0) == 0);
  CHECK (memcmp (buf, guest, SIZE) == 0);
  image_close (image);
  has_qcow2_below = false;
  memory_file_free (&backing_file);
}

/* The first bitmap that is asked for has to be there like the others. */
static void
test_bitmap (void)
{
  const char *const names[] = { "no such bitmap" };
  struct image *image;

  make (&plain);
  CHECK (open_with ((struct image_options) {
                      .bitmaps = names, .nr_bitmaps = 1
                    }, &image) < 0);
  CHECK (errors == 1 && strstr (last, names[0]));
}

/* A data file holds clusters only as they are. */
static void
test_compress (void)
{
  const struct image_options options = { .write.compress = true };
  struct image_spec spec = plain;
  struct image *image;

  make (&plain);
  CHECK (open_with (options, &image) == 0);
  image_close (image);
  spec.external = true;
  make (&spec);
  CHECK (open_with (options, &image) == -ENOTSUP && errors == 1);
  CHECK (strstr (last, "cannot be compressed"));
}

/* Requests are best of the size that can be written without reading. */
static void
test_preferred_size (void)
{
  struct image_options options = { 0 };
  struct image_spec spec = plain;
  struct image *image;

  spec.cluster_bits = 14;
  spec.extended = true;
  make (&spec);
  CHECK (open_with (options, &image) == 0);
  CHECK (image_preferred_size (image) == 512);
  CHECK (image_is_unchanged (image) && image_is_pristine (image));
  image_close (image);
  options.write_env = &write_env;
  CHECK (open_with (options, &image) == 0);
  CHECK (image_preferred_size (image) == 512);
  CHECK (image_is_unchanged (image) && image_is_pristine (image));
  image_close (image);
  options.write.compress = true;
  CHECK (open_with (options, &image) == 0);
  CHECK (image_preferred_size (image) == 16384);
  image_close (image);
}

/* The snapshot still has what the active disk has lost with its table. */
static void
test_snapshot (void)
{
  static const uint64_t none = 0;
  struct image_spec spec = plain;
  struct image *image;
  uint8_t buf[CLUSTER], entry[ENTRY];
  be64 l1, table;

  spec.snapshot = true;
  make (&spec);
  memcpy (&l1, image_file.bytes + 40, sizeof l1);
  memory_file_write (&image_file, &none, sizeof none, be64_get (l1));

  CHECK (open_with ((struct image_options) { 0 }, &image) == 0);
  CHECK (image_read (image, buf, CLUSTER, 0) == 0);
  CHECK (memcmp (buf, guest, CLUSTER) != 0);
  image_close (image);
  CHECK (open_with ((struct image_options) { .snapshot = "snap" },
                    &image) == 0);
  CHECK (image_read (image, buf, CLUSTER, 0) == 0);
  CHECK (memcmp (buf, guest, CLUSTER) == 0);
  image_close (image);
  CHECK (open_with ((struct image_options) { .snapshot = "other" },
                    &image) == -ENOENT);
  CHECK (errors == 1);
  CHECK (strstr (last, "\"other\"") && strstr (last, "1 (snap)"));

  /* Another one with the same names. */
  memcpy (&table, image_file.bytes + 64, sizeof table);
  memcpy (entry, image_file.bytes + be64_get (table), sizeof entry);
  memory_file_write (&image_file, entry, sizeof entry,
                     be64_get (table) + sizeof entry);
  image_file.bytes[63] = 2;
  CHECK (open_with ((struct image_options) { .snapshot = "other" },
                    &image) == -ENOENT);
  CHECK (errors == 1 && strstr (last, ": 1 (snap), 1 (snap)"));
}

/* Whatever cannot be read is reported. */
static void
test_failed_reads (void)
{
  struct image *image;
  int r = -EIO;

  make (&plain);
  for (unsigned nth = 1; r < 0; nth++) {
    record.fault = (struct memory_fault) {
      .kind = MEMORY_READ, .file = -1, .nth = nth, .error = EIO,
    };
    r = open_with ((struct image_options) { 0 }, &image);
    CHECK (r == 0 || (r == -EIO && errors == 1));
  }
  CHECK (record.faults_met >= 3 && errors == 0);
  image_close (image);
  record.fault.nth = 0;
}

/* The stream of a description cannot be closed if memory is short. */
static bool no_memory;

int __wrap_fclose (FILE *f);
int __real_fclose (FILE *f);

int
__wrap_fclose (FILE *f)
{
  const int r = __real_fclose (f);

  return no_memory ? EOF : r;
}

static void
check_description (const char *wanted)
{
  struct image *image;
  char *is;

  CHECK (open_with ((struct image_options) { 0 }, &image) == 0);
  is = image_describe (image);
  CHECK (is != NULL && strcmp (is, wanted) == 0);
  free (is);
  no_memory = true;
  CHECK (image_describe (image) == NULL);
  no_memory = false;
  image_close (image);
}

static void
test_describe (void)
{
  static const uint8_t zstd_bit = 8, zstd = 1;
  struct image_spec spec = plain;

  make (&plain);
  check_description ("qcow2 v3, 512 byte clusters");
  spec.version = 2;
  spec.cluster_bits = 10;
  make (&spec);
  check_description ("qcow2 v2, 1 KiB clusters");
  spec.version = 3;
  spec.cluster_bits = 14;
  spec.extended = true;
  make (&spec);
  check_description ("qcow2 v3, 16 KiB clusters, extended L2");

  spec = plain;
  spec.encrypted = true;
  make (&spec);
  check_description ("qcow2 v3, 512 byte clusters, encrypted");

  /* A longer header says how clusters are compressed. */
  spec = plain;
  make (&spec);
  image_file.bytes[79] |= zstd_bit;
  image_file.bytes[103] = 112;
  memory_file_write (&image_file, &zstd, 1, 104);
  check_description ("qcow2 v3, 512 byte clusters, zstd");

  /* Of a path the last part counts. */
  spec.external = true;
  make (&spec);
  data_name = "/disks/d";
  check_description ("qcow2 v3, 512 byte clusters, external data file d");
  data_name = "nbd://server/";
  check_description ("qcow2 v3, 512 byte clusters, external data file "
                     "nbd://server/");
}

int
main (void)
{
  report_set_sink (sink);
  memory_log_init (&record);
  test_check ();
  test_encryption ();
  test_dirty ();
  test_data_file ();
  test_useless_data_file ();
  test_chain ();
  test_bitmap ();
  test_compress ();
  test_preferred_size ();
  test_snapshot ();
  test_failed_reads ();
  test_describe ();
  memory_log_clear (&record);
  memory_file_free (&image_file);
  memory_file_free (&data_file);
  memory_file_free (&backing_file);
  return EXIT_SUCCESS;
}
