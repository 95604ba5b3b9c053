/* qcow2ext: writes that need an L2 table of their own and get none.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A request that fails for want of a table changes nothing, of the disk or of
 * the snapshot that shares the old table, and says why.  If another request has
 * made the table meanwhile, a full disk is no reason to fail.
 *
 * Where a table was that has moved is free if nothing shares it.
 */

#include "build-config.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "crash-workloads.h"
#include "data/writer.h"
#include "image/chain.h"

#define CLUSTER UINT64_C (512)
#define REACH (CLUSTER / 8 * CLUSTER) /* of an L2 table */
#define SIZE (4 * REACH)

static struct memory_file file[MEMORY_FILES];
static struct memory_log changes;
static struct image *image;
static uint8_t initial[SIZE], guest[SIZE], seen[SIZE], fresh[CLUSTER];

static int
write_cluster (uint64_t offset)
{
  int r;

  memory_in_engine = true;
  r = image_write (image, fresh, CLUSTER, offset);
  memory_in_engine = false;
  if (r == 0)
    memcpy (guest + offset, fresh, CLUSTER);
  return r;
}

static void
check_guest (void)
{
  CHECK (image_read (image, seen, SIZE, 0) == 0);
  CHECK (memcmp (seen, guest, SIZE) == 0);
}

/* What there is of the first table: nothing; one that a snapshot shares; one
 * that a snapshot shares though its count says that none does; one of which the
 * L1 entry says that a snapshot shares it, though none does.
 */
enum kind { NONE, SHARED, LOW, LEFT };

/* Takes the copied flag from the first L1 entry. */
static void
unflag (struct memory_file *f)
{
  be64 l1, entry;

  memcpy (&l1, f->bytes + 40, sizeof l1);
  memcpy (&entry, f->bytes + be64_get (l1), sizeof entry);
  entry = be64_make (be64_get (entry) & ~QCOW2_COPIED);
  memory_file_write (f, &entry, sizeof entry, be64_get (l1));
}

/* Makes the count of the first L2 table 1. */
static void
lower (struct memory_file *f)
{
  const be16 one = be16_make (1);
  be64 l1, entry, reftable, refblock;

  memcpy (&l1, f->bytes + 40, sizeof l1);
  memcpy (&entry, f->bytes + be64_get (l1), sizeof entry);
  memcpy (&reftable, f->bytes + 48, sizeof reftable);
  memcpy (&refblock, f->bytes + be64_get (reftable), sizeof refblock);
  memory_file_write (f, &one, sizeof one,
                     be64_get (refblock)
                     + be64_get (entry) / CLUSTER * sizeof one);
}

static void
begin (enum kind kind)
{
  const struct image_spec spec = {
    .name = "own", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = kind == NONE ? "." : "D",
    .snapshot = kind == SHARED || kind == LOW,
  };
  static struct files files = { .file = file, .log = &changes };

  memory_log_init (&changes);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], initial);
  memcpy (guest, initial, SIZE);
  if (kind == LEFT)
    unflag (&file[MEMORY_IMAGE]);
  if (kind == LOW)
    lower (&file[MEMORY_IMAGE]);
  CHECK (files_open (&files, true, 0, &image) == 0);
  /* What has to be done once in a session is done. */
  CHECK (write_cluster (SIZE - CLUSTER) == 0);
  CHECK (image_flush (image) == 0);
}

static void
end (enum kind kind)
{
  struct checker c = { 0 };

  check_guest ();
  CHECK (image_settle (image, false) == 0);
  image_close (image);
  checker_run (&c, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
               &file[MEMORY_BACKING]);

  CHECK (c.errors == 0 && c.leaks == 0);
  CHECK (memcmp (c.guest, guest, SIZE) == 0);
  CHECK (c.has_snapshot == (kind == SHARED));
  CHECK (kind != SHARED || memcmp (c.snapshot, initial, SIZE) == 0);
  checker_free (&c);
  memory_log_clear (&changes);
  memory_files_free (file);
}

static void
test_failure (enum kind kind, int error)
{
  begin (kind);
  changes.fault = (struct memory_fault) {
    .kind = MEMORY_WRITE, .file = MEMORY_IMAGE, .nth = 1, .error = error,
  };
  CHECK (write_cluster (CLUSTER) == -error);
  CHECK (changes.faults_met == 1);
  check_guest ();
  CHECK (write_cluster (CLUSTER) == 0);
  end (kind);
}

/* Where a table was that none shares is free like any other cluster. */
static void
test_left (void)
{
  begin (LEFT);
  for (unsigned i = 0; i < 4; i++) {
    CHECK (write_cluster (i * CLUSTER) == 0);
    CHECK (image_trim (image, CLUSTER, (20 + i) * CLUSTER) == 0);
    memset (guest + (20 + i) * CLUSTER, 0, CLUSTER);
    CHECK (image_settle (image, false) == 0);
    CHECK (write_cluster ((20 + i) * CLUSTER) == 0);
  }
  end (LEFT);
}

/* The table behind it stays metadata. */
static void
test_neighbour (void)
{
  const struct image_spec spec = {
    .name = "neighbour", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = "Z",
  };
  static struct files files = { .file = file, .log = &changes };
  be64 l1, entry;

  memory_log_init (&changes);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], initial);
  memcpy (guest, initial, SIZE);
  memcpy (&l1, file[MEMORY_IMAGE].bytes + 40, sizeof l1);
  memcpy (&entry, file[MEMORY_IMAGE].bytes + be64_get (l1), sizeof entry);
  unflag (&file[MEMORY_IMAGE]);
  CHECK (files_open (&files, true, 0, &image) == 0);
  CHECK (write_cluster (0) == 0);
  CHECK (image_settle (image, false) == 0);
  for (unsigned i = 0; i < 3; i++)
    CHECK (metadata_map_overlaps (&image->top->writer->metadata,
                                  (be64_get (entry) & ~QCOW2_COPIED)
                                    + i * CLUSTER, CLUSTER) == (i > 0));
  end (LEFT);
}

/* A snapshot's table does not become free, whatever its count says: writing
 * ends.
 */
static void
test_low (void)
{
  struct checker c = { 0 };

  begin (LOW);
  CHECK (write_cluster (CLUSTER) == 0);
  image_settle (image, false);
  CHECK (write_cluster (2 * CLUSTER) == -EIO);
  check_guest ();
  image_close (image);
  checker_run (&c, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
               &file[MEMORY_BACKING]);
  CHECK (memcmp (c.snapshot, initial, SIZE) == 0);
  checker_free (&c);
  memory_log_clear (&changes);
  memory_files_free (file);
}

/* Another request makes the table while this one is about to write its own,
 * for which there is no space.
 */
static void
be_faster (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  if (!before || op->kind != MEMORY_WRITE)
    return;
  changes.hook = NULL;
  CHECK (write_cluster (2 * CLUSTER) == 0);
  changes.fault = (struct memory_fault) {
    .kind = MEMORY_WRITE, .file = MEMORY_IMAGE, .nth = 1, .error = ENOSPC,
  };
}

/* The same, and there is space for both: what is too much is given back. */
static void
be_faster_only (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  if (!before || op->kind != MEMORY_WRITE)
    return;
  changes.hook = NULL;
  CHECK (write_cluster (2 * CLUSTER) == 0);
}

static void
test_two (enum kind kind)
{
  begin (kind);
  changes.hook = be_faster_only;
  CHECK (write_cluster (CLUSTER) == 0);
  CHECK (changes.hook == NULL);
  end (kind);
}

static void
test_faster (enum kind kind)
{
  begin (kind);
  changes.hook = be_faster;
  CHECK (write_cluster (CLUSTER) == 0);
  CHECK (changes.faults_met == 1);
  end (kind);
}

int
main (void)
{
  crash_quiet ();
  memset (fresh, 0x77, sizeof fresh);
  for (enum kind kind = NONE; kind <= SHARED; kind++) {
    test_failure (kind, EIO);
    test_failure (kind, ENOSPC);
    test_faster (kind);
    test_two (kind);
  }
  test_left ();
  test_neighbour ();
  test_low ();
  return EXIT_SUCCESS;
}
