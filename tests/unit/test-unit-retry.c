/* qcow2ext: what tables and counts are when something fails, and after it.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A commit of which a write fails is repeated by the next one, which then
 * writes all that is needed.  A table that is gone again when a change gets to
 * look at it is loaded once more.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "crash.h"
#include "data/writer.h"
#include "image/chain.h"
#include "image/check.h"
#include "map/l2-cache.h"
#include "map/mapping.h"

static struct memory_file file[MEMORY_FILES];
static struct memory_log record;
static struct files files = { .file = file, .log = &record };
static struct image *image;

/* --- commits --- */

/* Writes to a new table and to one that is there, and flushes, of which the
 * nth write to the image fails.  Returns whether there was such a one.
 */
static bool
test_commit (unsigned cluster_bits, unsigned nth)
{
  const uint64_t cluster = UINT64_C (1) << cluster_bits;
  char map[80 * 64 + 1] = "D";
  const struct image_spec spec = {
    .name = "retry", .version = 3, .cluster_bits = cluster_bits,
    .refcount_order = 4, .size = cluster_bits == 9 ? 80 * 64 * 512
                                                   : 2 * cluster,
    .map = map,
  };
  uint8_t *guest = malloc (spec.size), *seen = malloc (spec.size);
  struct check_result result;
  bool met;

  CHECK (guest && seen);
  memset (map + 1, '.', sizeof map - 2);
  memory_log_init (&record);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  CHECK (files_open (&files, true, 16 << 20, &image) == 0);
  memset (guest, 1, 512);
  CHECK (image_write (image, guest, 512, 0) == 0);
  CHECK (image_flush (image) == 0);
  for (uint64_t at = spec.size / 2; at < spec.size; at += spec.size / 4) {
    memset (guest + at, 2, 512);
    CHECK (image_write (image, guest + at, 512, at) == 0);
  }
  memset (guest + 4096, 3, 512);
  CHECK (image_write (image, guest + 4096, 512, 4096) == 0);

  record.fault = (struct memory_fault) {
    .kind = MEMORY_WRITE, .file = MEMORY_IMAGE, .nth = nth, .error = ENOSPC,
  };
  record.faults_met = 0;
  memory_in_engine = true;
  met = image_flush (image) != 0;
  memory_in_engine = false;
  CHECK (met == (record.faults_met == 1));
  record.fault.nth = 0;
  CHECK (!image_has_failed (image));
  CHECK (image_flush (image) == 0);
  image_close (image);

  CHECK (files_open (&files, false, 0, &image) == 0);
  CHECK (image_read (image, seen, spec.size, 0) == 0);
  CHECK (memcmp (seen, guest, spec.size) == 0);
  CHECK (layer_check (image->top, false, &result) == 0);
  CHECK (result.errors == 0 && result.leaks == 0);
  free (result.counts);
  image_close (image);
  memory_files_free (file);
  memory_log_clear (&record);
  free (guest);
  free (seen);
  return met;
}

/* --- a table that goes --- */

static unsigned drops;          /* of all tables, to come */

int __wrap_l2_cache_load (struct layer *layer, uint32_t index,
                          const char **why);
int __real_l2_cache_load (struct layer *layer, uint32_t index,
                          const char **why);

int
__wrap_l2_cache_load (struct layer *layer, uint32_t index, const char **why)
{
  const int r = __real_l2_cache_load (layer, index, why);

  if (drops && drops--)
    l2_cache_drop (layer);
  return r;
}

#define SIZE 32768

static void
open_small (const char *map)
{
  const struct image_spec spec = {
    .name = "small", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = SIZE, .map = map,
  };
  static uint8_t guest[SIZE];

  memory_log_init (&record);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  CHECK (files_open (&files, true, 0, &image) == 0);
}

static void
close_small (void)
{
  image_close (image);
  memory_files_free (file);
  memory_log_clear (&record);
}

static void
test_gone (void)
{
  struct mapping_entry e;

  open_small ("D");
  /* It is in memory, and as on disk, so that it may go. */
  CHECK (image_zero (image, 512, 512, 0) == 0);
  CHECK (image_flush (image) == 0);
  drops = 2;
  CHECK (image_zero (image, 512, 0, 0) == 0);
  CHECK (drops == 0);
  CHECK (image_flush (image) == 0);
  CHECK (mapping_get_entry (image->top, 0, &e) == 0);
  CHECK (e.run.type == RUN_ZERO);
  close_small ();
}

/* Once something has failed for good no table is changed, and none stays
 * locked.
 */
static void
test_failed (void)
{
  struct writer *w;
  uint64_t done;
  bool changed;

  open_small ("D");
  CHECK (image_zero (image, 512, 0, 0) == 0);
  w = image->top->writer;
  w->health.failed = true;
  for (unsigned i = 0; i < 2; i++) {
    CHECK (mapping_zero (&w->update, 512, 512, false, &done, &changed)
           == -EIO);
    CHECK (done == 0 && !changed);
  }
  close_small ();
}

/* --- one entry --- */

static void
test_entry (void)
{
  struct mapping_entry e;

  open_small (".");
  CHECK (mapping_get_entry (image->top, 0, &e) == 0);
  CHECK (e.entry == 0 && e.bitmap == 0 && e.run.type == RUN_UNALLOCATED);
  close_small ();

  open_small ("D");
  record.fault = (struct memory_fault) {
    .kind = MEMORY_READ, .file = MEMORY_IMAGE, .nth = 1, .error = EIO,
  };
  memory_in_engine = true;
  CHECK (mapping_get_entry (image->top, 0, &e) == -EIO);
  CHECK (mapping_get_entry (image->top, 0, &e) == 0);
  memory_in_engine = false;
  CHECK (e.run.type == RUN_DATA && e.run.copied);
  close_small ();
}

/* --- the list of what was let go of --- */

static atomic_bool is_done;

static void *
end_commit (void *opaque)
{
  deferred_free_done (opaque, true);
  is_done = true;
  return NULL;
}

static void
test_lock (void)
{
  struct deferred_free *frees;
  pthread_t thread;

  open_small ("D");
  CHECK (image_zero (image, 512, 0, 0) == 0);
  frees = &image->top->writer->frees;
  pthread_mutex_lock (&frees->lock);
  CHECK (pthread_create (&thread, NULL, end_commit, frees) == 0);
  nanosleep (&(struct timespec) { .tv_nsec = 20000000 }, NULL);
  CHECK (!is_done);
  pthread_mutex_unlock (&frees->lock);
  CHECK (pthread_join (thread, NULL) == 0);
  close_small ();
}

int
main (void)
{
  static const unsigned bits[] = { 9, 21 };

  alarm (60);                   /* what waits for ever has failed */
  crash_quiet ();
  for (unsigned i = 0; i < 2; i++) {
    unsigned nth = 1;

    while (test_commit (bits[i], nth))
      nth++;
    CHECK (nth > 2);
  }
  test_gone ();
  test_failed ();
  test_entry ();
  test_lock ();
  return EXIT_SUCCESS;
}
