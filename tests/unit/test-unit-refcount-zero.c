/* qcow2ext: a cluster that is in use and counts as free.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A write that copies such a cluster, or lets go of it, must not be given it as
 * a new place: the image is marked corrupt, and nothing is overwritten.
 */

#include "build-config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash-workloads.h"
#include "disk/format.h"

static struct memory_file file[MEMORY_FILES];
static unsigned failures;

static uint64_t
get (uint64_t at)
{
  uint64_t v = 0;

  for (unsigned i = 0; i < 8; i++)
    v = v << 8 | file[MEMORY_IMAGE].bytes[at + i];
  return v;
}

static void
put (uint64_t at, uint64_t v)
{
  uint8_t bytes[8];

  for (unsigned i = 0; i < 8; i++)
    bytes[i] = v >> (56 - 8 * i);
  memory_file_write (&file[MEMORY_IMAGE], bytes, 8, at);
}

/* Sets the count of the cluster at a host offset to 0; counts have 16 bits. */
static void
make_free (const struct image_spec *spec, uint64_t host)
{
  const uint64_t cluster = host >> spec->cluster_bits;
  const uint64_t per_block = (UINT64_C (1) << spec->cluster_bits) / 2;
  const uint64_t block = get (get (48) + cluster / per_block * 8);

  memory_file_zero (&file[MEMORY_IMAGE], 2, block + cluster % per_block * 2);
}

static void
run (const char *name, uint64_t guest_cluster, bool shared)
{
  const struct image_spec *spec = crash_spec (name);
  const uint64_t size = UINT64_C (1) << spec->cluster_bits;
  const uint64_t offset = guest_cluster * size;
  struct files files = { .file = file, .write = spec->write };
  struct memory_log log = { 0 };
  struct memory_file before;
  uint8_t *disk = malloc (spec->size), data[100];
  struct image *image;
  uint64_t at, host;
  int r;

  if (disk == NULL)
    abort ();
  memset (data, 0x55, sizeof data);
  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  at = (get (get (40)) & QCOW2_L1_OFFSET) + guest_cluster * 8;
  if (shared)
    put (at, get (at) & ~QCOW2_COPIED);
  host = get (at) & (get (at) & QCOW2_L2_COMPRESSED ? UINT64_C (0xffffffff)
                                                    : QCOW2_L2_OFFSET);
  make_free (spec, host);
  memset (&before, 0, sizeof before);
  memory_file_copy (&before, &file[MEMORY_IMAGE]);

  memory_log_init (&log);
  files.log = &log;
  if (files_open (&files, true, 0, &image) < 0)
    abort ();
  r = image_write (image, data, sizeof data, offset + 50);
  if (r != -EIO) {
    printf ("FAIL: %s: writing leads to %d\n", name, r);
    failures++;
  }
  if (!(get (72) & QCOW2_INCOMPAT_CORRUPT)) {
    printf ("FAIL: %s: the image is not marked corrupt\n", name);
    failures++;
  }
  if (memcmp (file[MEMORY_IMAGE].bytes + host, before.bytes + host, 64) != 0) {
    printf ("FAIL: %s: the cluster is overwritten\n", name);
    failures++;
  }

  image_close (image);
  memory_file_free (&before);
  memory_files_free (file);
  memory_log_clear (&log);
  free (disk);
}

int
main (void)
{
  crash_quiet ();
  run ("mixed", 0, true);
  run ("compressed", 0, false);
  printf ("%u failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
