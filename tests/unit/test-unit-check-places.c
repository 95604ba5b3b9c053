/* qcow2ext: the check of where the L1 table of a snapshot lies.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A table that lies where none can is one error, and is not read.  One that
 * begins where the file ends is there, with zeros, as for everybody who reads:
 * only its count may be wrong.
 */

#include "build-config.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "crash.h"
#include "image/chain.h"
#include "image/check.h"

#define CLUSTER UINT64_C (512)
#define SIZE (64 * CLUSTER)

static struct memory_file file[MEMORY_FILES];

static void
put_l1 (uint64_t offset)
{
  const be64 field = be64_make (offset);
  be64 table;

  memcpy (&table, file[MEMORY_IMAGE].bytes + 64, sizeof table);
  memory_file_write (&file[MEMORY_IMAGE], &field, sizeof field,
                     be64_get (table));
}

static struct check_result
check (void)
{
  struct files files = { .file = file };
  struct check_result result;
  struct image *image;

  CHECK (files_open (&files, false, 0, &image) == 0);
  CHECK (layer_check (image->top, false, &result) == 0);
  free (result.counts);
  image_close (image);
  return result;
}

/* In a data file a cluster is where the guest has it, and has the copied flag. */
static void
test_data_file (void)
{
  static const struct image_spec spec = {
    .name = "pair", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D", .external = true,
  };
  static const struct {
    uint64_t entry;             /* of the second cluster */
    uint64_t errors;
  } cases[] = {
    { CLUSTER | QCOW2_COPIED, 0 }, { CLUSTER, 1 },
    { 2 * CLUSTER | QCOW2_COPIED, 1 }, { 2 * CLUSTER, 2 }, { QCOW2_COPIED, 1 },
    { 0, 0 },
  };
  static uint8_t guest[SIZE];
  struct memory_file *image = &file[MEMORY_IMAGE];
  be64 l1, l2;

  make_image (&spec, image, &file[MEMORY_DATA], &file[MEMORY_BACKING], guest);
  memcpy (&l1, image->bytes + 40, sizeof l1);
  memcpy (&l2, image->bytes + be64_get (l1), sizeof l2);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const be64 entry = be64_make (cases[i].entry);

    memory_file_write (image, &entry, sizeof entry,
                       (be64_get (l2) & ~QCOW2_COPIED) + sizeof entry);
    CHECK (check ().errors == cases[i].errors);
  }
  memory_files_free (file);
}

/* Counts are looked for in the block that has them. */
static void
test_blocks (void)
{
  static const struct image_spec spec = {
    .name = "blocks", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 3 * CLUSTER / 2 * CLUSTER, .map = "D",
  };
  static uint8_t guest[3 * CLUSTER / 2 * CLUSTER];

  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  CHECK (file[MEMORY_IMAGE].size > 2 * CLUSTER / 2 * CLUSTER);
  CHECK (check ().errors == 0);
  CHECK (check ().leaks == 0);
  memory_files_free (file);
}

/* A refcount block at an odd cluster is as good as any; one at the end of the
 * file is one error.
 */
static void
test_refblock (void)
{
  static const struct image_spec spec = {
    .name = "refblock", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D",
  };
  static uint8_t guest[SIZE];
  struct memory_file *image = &file[MEMORY_IMAGE];
  const be16 none = be16_make (0), one = be16_make (1);
  uint8_t block[CLUSTER];
  be64 table, old, new;
  uint64_t end;

  make_image (&spec, image, &file[MEMORY_DATA], &file[MEMORY_BACKING], guest);
  memcpy (&table, image->bytes + 48, sizeof table);
  memcpy (&old, image->bytes + be64_get (table), sizeof old);
  end = (image->size + CLUSTER - 1) & -CLUSTER;
  memory_file_resize (image, end);
  new = be64_make (end);
  memory_file_write (image, &new, sizeof new, be64_get (table) + sizeof new);
  CHECK (check ().errors == 1);
  new = be64_make (0);
  memory_file_write (image, &new, sizeof new, be64_get (table) + sizeof new);

  end |= CLUSTER;
  new = be64_make (end);
  memcpy (block, image->bytes + be64_get (old), CLUSTER);
  memcpy (block + be64_get (old) / CLUSTER * 2, &none, sizeof none);
  memcpy (block + end / CLUSTER * 2, &one, sizeof one);
  memory_file_write (image, block, CLUSTER, end);
  memory_file_write (image, &new, sizeof new, be64_get (table));
  CHECK (check ().errors == 0);
  CHECK (check ().leaks == 0);
  memory_files_free (file);
}

/* A block that is not aligned, or not there, has no counts; and that it is not
 * aligned is one error more.
 */
static void
test_lost_block (void)
{
  static const struct image_spec spec = {
    .name = "lost", .version = 3, .cluster_bits = 10, .refcount_order = 4,
    .size = SIZE, .map = "D",
  };
  static uint8_t guest[SIZE];
  struct memory_file *image = &file[MEMORY_IMAGE];
  const be16 one = be16_make (1);
  uint64_t errors[2];
  be64 table, block;

  make_image (&spec, image, &file[MEMORY_DATA], &file[MEMORY_BACKING], guest);
  memcpy (&table, image->bytes + 48, sizeof table);
  memcpy (&block, image->bytes + be64_get (table), sizeof block);
  CHECK (image->size < 256 * 1024);
  for (unsigned i = 256; i < 512; i++) /* counts that no cluster has */
    memory_file_write (image, &one, sizeof one,
                       be64_get (block) + i * sizeof one);
  for (unsigned i = 0; i < 2; i++) {
    const be64 entry = be64_make (i ? be64_get (block) + 512 : 0);
    struct check_result r;

    memory_file_write (image, &entry, sizeof entry, be64_get (table));
    r = check ();
    errors[i] = r.errors;
    CHECK (r.leaks == 0);
  }
  CHECK (errors[1] == errors[0] + 1);
  memory_files_free (file);
}

/* What is compressed has no subclusters. */
static void
test_compressed (void)
{
  static const struct image_spec spec = {
    .name = "compressed", .version = 3, .cluster_bits = 14,
    .refcount_order = 4, .size = UINT64_C (1) << 14, .map = "C",
    .extended = true,
  };
  static uint8_t guest[1 << 14];
  struct memory_file *image = &file[MEMORY_IMAGE];
  be64 l1;

  make_image (&spec, image, &file[MEMORY_DATA], &file[MEMORY_BACKING], guest);
  CHECK (check ().errors == 0);
  memcpy (&l1, image->bytes + 40, sizeof l1);
  memcpy (&l1, image->bytes + be64_get (l1), sizeof l1);
  image->bytes[(be64_get (l1) & ~QCOW2_COPIED) + 15] |= 1;
  CHECK (check ().errors == 1);
  memory_files_free (file);
}

/* A file of so many clusters that there is no array for their counts, where
 * sizes have 32 bits.
 */
static int
huge_size (struct store *s, uint64_t *size)
{
  (void) s;
  *size = (UINT64_C (1) << 32) * CLUSTER;
  return 0;
}

static void
test_huge_file (void)
{
  static const struct image_spec spec = {
    .name = "huge", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D",
  };
  struct files files = { .file = file };
  struct check_result result;
  static uint8_t guest[SIZE];
  struct image *image;
  struct store_ops ops;

  if (SIZE_MAX > UINT32_MAX)
    return;
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  CHECK (files_open (&files, false, 0, &image) == 0);
  ops = *files.store->ops;
  ops.get_size = huge_size;
  files.store->ops = &ops;
  CHECK (layer_check (image->top, false, &result) == -ENOMEM);
  image_close (image);
  memory_files_free (file);
}

int
main (void)
{
  static const struct image_spec spec = {
    .name = "places", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "D", .snapshot = true,
  };
  static uint8_t guest[SIZE];
  struct check_result r;
  be64 table, l1;
  uint64_t end, leaks = 0;

  crash_quiet ();
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  memcpy (&table, file[MEMORY_IMAGE].bytes + 64, sizeof table);
  memcpy (&l1, file[MEMORY_IMAGE].bytes + be64_get (table), sizeof l1);
  end = (file[MEMORY_IMAGE].size + CLUSTER - 1) & -CLUSTER;
  memory_file_resize (&file[MEMORY_IMAGE], end);
  r = check ();
  CHECK (r.errors == 0 && r.leaks == 0);

  /* Past the end, and a byte or an entry beside the place. */
  for (unsigned i = 0; i < 3; i++) {
    put_l1 (i == 0 ? end + CLUSTER : be64_get (l1) + (i == 1 ? 1 : 8));
    r = check ();
    if (i == 0)
      leaks = r.leaks;
    CHECK (r.errors == 1 && r.wrong_counts == 0);
    CHECK (r.leaks == leaks && leaks > 0);
  }

  put_l1 (end);
  r = check ();
  CHECK (r.errors == 1 && r.wrong_counts == 1 && r.leaks == leaks);
  memory_files_free (file);
  test_data_file ();
  test_blocks ();
  test_refblock ();
  test_lost_block ();
  test_compressed ();
  test_huge_file ();
  return EXIT_SUCCESS;
}
