/* qcow2ext: the space of clusters that are free again goes back.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Once a trim is committed, no cluster of the image file that counts as free
 * takes space, and none that is in use has lost it, or what was written to it
 * meanwhile.
 */

#include "build-config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "crash-workloads.h"
#include "data/writer.h"
#include "image/chain.h"

#define CLUSTER UINT64_C (512)
#define SIZE (200 * CLUSTER)

static struct memory_file file[MEMORY_FILES];
static uint8_t guest[SIZE], seen[SIZE];
static struct memory_log changes;
static struct image *image;

/* Of the first refcount block, which is all there is here. */
static uint64_t
count_of (uint64_t cluster)
{
  const struct memory_file *f = &file[MEMORY_IMAGE];
  be64 table, block;
  be16 count;

  CHECK (cluster < CLUSTER / 2);
  memcpy (&table, f->bytes + 48, sizeof table);
  memcpy (&block, f->bytes + be64_get (table), sizeof block);
  memcpy (&count, f->bytes + be64_get (block) + cluster * 2, sizeof count);
  return be16_get (count);
}

/* Returns how many clusters are holes. */
static uint64_t
check_holes (void)
{
  const struct memory_file *f = &file[MEMORY_IMAGE];
  uint64_t holes = 0;

  for (uint64_t c = 0; c < f->size / CLUSTER; c++) {
    CHECK (f->full[c] == (count_of (c) != 0));
    holes += !f->full[c];
  }
  return holes;
}

/* Returns how many discards that takes. */
static size_t
trim (uint64_t first, uint64_t clusters)
{
  const size_t before = changes.count;
  size_t discards = 0;

  CHECK (image_zero (image, clusters * CLUSTER, first * CLUSTER,
                     IMAGE_ZERO_UNMAP) == 0);
  memset (guest + first * CLUSTER, 0, clusters * CLUSTER);
  CHECK (image_settle (image, false) == 0);
  for (size_t i = before; i < changes.count; i++)
    discards += changes.op[i].kind == MEMORY_DISCARD;
  return discards;
}

static void
begin (const char *map)
{
  const struct image_spec spec = {
    .name = "space", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = map,
  };
  static struct files files = { .file = file, .log = &changes };

  memory_log_init (&changes);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  CHECK (files_open (&files, true, 0, &image) == 0);
}

static void
end (void)
{
  CHECK (check_holes () > 1);
  CHECK (image_read (image, seen, SIZE, 0) == 0);
  CHECK (memcmp (seen, guest, SIZE) == 0);
  image_close (image);
  memory_log_clear (&changes);
  memory_files_free (file);
}

/* Clusters that lie side by side go back at once. */
static void
test_data (const char *map)
{
  static const struct {
    uint64_t first, clusters;
  } ranges[] = { { 0, 1 }, { 8, 1 }, { 20, 30 }, { 4, 60 }, { 0, 200 } };

  begin (map);
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
    const size_t discards = trim (ranges[i].first, ranges[i].clusters);

    CHECK (discards == 1 || i > 2);
    check_holes ();
  }
  end ();
}

/* A cluster goes back with the last compressed one that it has part of. */
static void
test_compressed (const char *map)
{
  begin (map);
  for (uint64_t i = 0; i < SIZE / CLUSTER; i++) {
    trim (i * 7 % (SIZE / CLUSTER), 1);
    check_holes ();
  }
  end ();
  /* Or with several, which are let go of together. */
  begin (map);
  for (uint64_t i = 0; i < SIZE / CLUSTER; i += 20) {
    trim (i, 20);
    check_holes ();
  }
  end ();
}

/* The disk ends within a cluster, of which some subclusters are past the end:
 * they are no reason to keep it.
 */
static void
test_partial (void)
{
  const uint64_t cluster = 16384, disk = 5 * cluster + 9 * 512;
  const struct image_spec spec = {
    .name = "partial", .version = 3, .cluster_bits = 14, .refcount_order = 4,
    .size = disk, .map = "D", .extended = true,
  };
  static struct files files = { .file = file, .log = &changes };
  size_t discards = 0;

  memory_log_init (&changes);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  CHECK (files_open (&files, true, 0, &image) == 0);
  CHECK (image_trim (image, disk, 0) == 0);
  CHECK (image_settle (image, false) == 0);
  for (size_t i = 0; i < changes.count; i++)
    if (changes.op[i].kind == MEMORY_DISCARD) {
      CHECK (changes.op[i].length == 6 * cluster);
      discards++;
    }
  CHECK (discards == 1);
  image_close (image);
  memory_log_clear (&changes);
  memory_files_free (file);
}

/* Compressed data is added to the cluster that was written last, from a sector
 * on, but not while that cluster goes.
 */
#define LARGE UINT64_C (4096)

static void
write_meanwhile (void *opaque, const struct memory_op *op, bool before)
{
  unsigned *discards = opaque;

  if (op->kind != MEMORY_DISCARD || !before)
    return;
  changes.hook = NULL;
  ++*discards;
  memset (guest + LARGE, 5, LARGE);
  CHECK (image_write (image, guest + LARGE, LARGE, LARGE) == 0);
}

static void
test_meanwhile (void)
{
  const struct image_spec spec = {
    .name = "meanwhile", .version = 3, .cluster_bits = 12,
    .refcount_order = 4, .size = 2 * LARGE, .map = ".",
  };
  static struct files files = {
    .file = file, .log = &changes, .write.compress = true,
  };
  unsigned discards = 0;

  memory_log_init (&changes);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  CHECK (files_open (&files, true, 0, &image) == 0);
  memset (guest, 7, LARGE);
  CHECK (image_write (image, guest, LARGE, 0) == 0);
  CHECK (image_flush (image) == 0);
  changes.hook = write_meanwhile;
  changes.opaque = &discards;
  CHECK (image_trim (image, LARGE, 0) == 0);
  memset (guest, 0, LARGE);
  CHECK (image_settle (image, false) == 0);
  CHECK (discards == 1);
  CHECK (image_read (image, seen, 2 * LARGE, 0) == 0);
  CHECK (memcmp (seen, guest, 2 * LARGE) == 0);
  image_close (image);
  CHECK (files_open (&files, false, 0, &image) == 0);
  CHECK (image_read (image, seen, 2 * LARGE, 0) == 0);
  CHECK (memcmp (seen, guest, 2 * LARGE) == 0);
  image_close (image);
  memory_log_clear (&changes);
  memory_files_free (file);
}

/* What several commits let go of waits for the same requests. */
static void
test_waiting (void)
{
  struct writer *w;
  struct epoch_ticket ticket;

  begin ("D");
  trim (0, 1);
  w = image->top->writer;
  ticket = epochs_enter (&w->changes);
  for (unsigned i = 1; i < 5; i++) {
    CHECK (image_zero (image, CLUSTER, i * CLUSTER, IMAGE_ZERO_UNMAP) == 0);
    memset (guest + i * CLUSTER, 0, CLUSTER);
    CHECK (image_flush (image) == 0);
    CHECK (w->frees.pending.count == 0 && w->frees.in_commit.count == 0);
    CHECK (w->frees.draining.count + w->frees.committed.count == i);
  }
  epochs_leave (&w->changes, ticket);
  /* The next request finds that they have ended, even if it changes nothing. */
  CHECK (image_zero (image, CLUSTER, CLUSTER, IMAGE_ZERO_UNMAP) == 0);
  CHECK (deferred_free_is_empty (&w->frees));
  trim (5, 1);
  CHECK (deferred_free_is_empty (&w->frees));
  check_holes ();
  end ();
}

/* The end of the file that is not in use is cut off while nobody uses the image,
 * and not only when it is closed.
 */
static void
test_idle (void)
{
  uint64_t size;

  begin (".");
  memset (guest, 1, 64 * CLUSTER);
  CHECK (image_write (image, guest, 64 * CLUSTER, 0) == 0);
  CHECK (image_flush (image) == 0);
  size = file[MEMORY_IMAGE].size;
  CHECK (image_zero (image, 64 * CLUSTER, 0, IMAGE_ZERO_UNMAP) == 0);
  memset (guest, 0, 64 * CLUSTER);
  for (unsigned i = 0; i < 3; i++)
    CHECK (image_settle (image, true) == 0);
  CHECK (file[MEMORY_IMAGE].size <= size - 63 * CLUSTER);
  CHECK (image->top->writer->settled);
  image_close (image);
  memory_log_clear (&changes);
  memory_files_free (file);
}

int
main (void)
{
  crash_quiet ();
  test_data ("D");
  test_data ("DZD.");
  test_compressed ("C");
  test_compressed ("CD");
  test_partial ();
  test_meanwhile ();
  test_waiting ();
  test_idle ();
  return EXIT_SUCCESS;
}
