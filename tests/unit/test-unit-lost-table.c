/* qcow2ext: L2 tables that lie past the end of the image file.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Such a table takes no memory when the image is first written to.  It stays
 * lost, whatever is added to the file: what comes to lie in its place is not
 * taken for it, and a hole there not for an empty table.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash-workloads.h"
#include "data/writer.h"
#include "image/chain.h"

#define CLUSTER UINT64_C (512)
#define REACH (CLUSTER / 8 * CLUSTER) /* of an L2 table */
#define SIZE (4 * REACH)

#define CHECK(x)                                                        \
  do {                                                                  \
    if (!(x)) {                                                         \
      fprintf (stderr, "%s:%d: not true: %s (%u clusters past the end)\n", \
               __FILE__, __LINE__, #x, past);                           \
      exit (EXIT_FAILURE);                                              \
    }                                                                   \
  } while (0)

static unsigned past;

/* The second table is lost.  Its refcount is 1, as that of a table should be,
 * so that the allocator leaves it alone.
 */
static uint64_t
lose_table (struct memory_file *f)
{
  const uint64_t host = ((f->size + CLUSTER - 1) & -CLUSTER) + past * CLUSTER;
  const be64 entry = be64_make (host | QCOW2_COPIED);
  const be16 count = be16_make (1);
  be64 l1, reftable, refblock;

  memcpy (&l1, f->bytes + 40, sizeof l1);
  memcpy (&reftable, f->bytes + 48, sizeof reftable);
  memcpy (&refblock, f->bytes + be64_get (reftable), sizeof refblock);
  memory_file_write (f, &entry, sizeof entry, be64_get (l1) + sizeof entry);
  CHECK (host / CLUSTER < CLUSTER / 2);
  memory_file_write (f, &count, sizeof count,
                     be64_get (refblock) + host / CLUSTER * sizeof count);
  return host / CLUSTER;
}

static void
run (void)
{
  const struct image_spec spec = {
    .name = "lost", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = ".",
  };
  struct memory_file file[MEMORY_FILES] = { 0 };
  struct files files = { .file = file };
  uint8_t *guest = malloc (SIZE), sector[512];
  struct image *image;
  struct metadata_map *map;
  uint64_t lost;
  int r = 0;

  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  lost = lose_table (&file[MEMORY_IMAGE]);
  CHECK (files_open (&files, true, 0, &image) == 0);
  memory_in_engine = false;
  memset (guest, 1, SIZE);
  CHECK (image_write (image, guest, CLUSTER, 0) == 0 || past == 0);
  map = &image->top->writer->metadata;
  CHECK (!cluster_set_contains (&map->single, lost));

  CHECK (image_read (image, sector, sizeof sector, REACH) == -EIO);
  for (uint64_t pos = CLUSTER; r == 0 && pos < REACH; pos += CLUSTER)
    r = image_write (image, guest, CLUSTER, pos);
  CHECK (r == -EIO);
  CHECK (image_read (image, sector, sizeof sector, REACH) == -EIO);
  image_close (image);
  memory_files_free (file);
  free (guest);
}

int
main (void)
{
  crash_quiet ();
  for (past = 0; past < 12; past += 4)
    run ();
  return EXIT_SUCCESS;
}
