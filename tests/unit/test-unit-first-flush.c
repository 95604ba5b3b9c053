/* qcow2ext: the first flush covers what a server before us has written.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * It was killed, and had not flushed.  The next session reads what it wrote,
 * from the page cache or a data server's, and flushes: then it has to be
 * durable, although this session has written nothing, or only guest data.
 */

#include "build-config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "crash-workloads.h"

static unsigned failures;

static bool
was_flushed (struct memory_log *log, unsigned which)
{
  for (size_t i = 0; i < log->count; i++)
    if (log->op[i].kind == MEMORY_FLUSH && log->op[i].file == which)
      return true;
  return false;
}

/* write: guest data goes to a place that is there. */
static void
run (const char *name, bool write)
{
  const struct image_spec *spec = crash_spec (name);
  struct memory_file file[MEMORY_FILES] = { 0 };
  struct memory_log log = { 0 };
  struct files files = { .file = file, .log = &log, .write = spec->write };
  uint8_t *disk = malloc (spec->size);
  struct image *image;

  if (disk == NULL)
    abort ();
  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  memory_log_init (&log);
  if (files_open (&files, true, 0, &image) < 0
      || (write && image_write (image, disk, 512, 0) < 0)
      || image_flush (image) < 0)
    abort ();
  if (!was_flushed (&log, MEMORY_IMAGE)
      || (spec->external && !was_flushed (&log, MEMORY_DATA))) {
    printf ("FAIL: %s, %s: a file was not flushed\n", name,
            write ? "written to" : "not written to");
    failures++;
  }
  image_close (image);
  memory_files_free (file);
  memory_log_clear (&log);
  free (disk);
}

/* One that fails is still to come; once it is done, there is no other. */
static void
test_failure (void)
{
  static const struct image_spec spec = {
    .name = "pair", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 4096, .map = "D", .external = true,
  };
  struct memory_file file[MEMORY_FILES] = { 0 };
  struct memory_log log = { 0 };
  struct files files = { .file = file, .log = &log };
  uint8_t disk[4096];
  struct image *image;
  size_t n;

  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], disk);
  memory_log_init (&log);
  CHECK (files_open (&files, true, 0, &image) == 0);
  CHECK (image_flush (image) == 0);
  CHECK (was_flushed (&log, MEMORY_IMAGE) && was_flushed (&log, MEMORY_DATA));
  n = log.count;
  CHECK (image_flush (image) == 0);
  CHECK (log.count == n);
  image_close (image);

  for (unsigned which = MEMORY_IMAGE; which <= MEMORY_DATA; which++) {
    CHECK (files_open (&files, true, 0, &image) == 0);
    log.fault = (struct memory_fault) {
      .kind = MEMORY_FLUSH, .file = which, .nth = 1, .error = EIO,
    };
    log.faults_met = 0;
    memory_in_engine = true;
    CHECK (image_flush (image) == -EIO);
    CHECK (image_flush (image) == -EIO);
    memory_in_engine = false;
    CHECK (log.faults_met == 1);
    image_close (image);
  }
  memory_files_free (file);
  memory_log_clear (&log);
}

int
main (void)
{
  static const char *const names[] = { "mixed", "pair", "raw-full" };

  crash_quiet ();
  for (unsigned i = 0; i < 3; i++)
    for (unsigned write = 0; write < 2; write++)
      run (names[i], write);
  test_failure ();
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
