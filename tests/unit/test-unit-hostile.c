/* qcow2ext: images that lie, by name.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each lie is told about each sound image that it fits.  Then the image is
 * used in every way, and what must hold whatever an image says is watched
 * (see hostile.h); besides, memory is bounded.
 *
 *   test-unit-hostile                   all of them
 *   test-unit-hostile list              their names
 *   test-unit-hostile NAME              the lies whose names begin so, with
 *                                       the engine's messages
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "hostile-images.h"
#include "hostile.h"
#include "image-walker.h"
#include "image/image.h"
#include "lies.h"

/* What the engine may have in memory: a few clusters of 2 MiB, its caches,
 * and what the file holds, twice.
 */
#define MEMORY_MAX (UINT64_C (24) << 20)

/* Processor time for one session, if it is not stopped by the bound on
 * operations.
 */
#define HANG_SECONDS 30

static const char *wanted;      /* NULL: all */
static bool listing;
static bool brief;              /* as in make check: a part of what is slow */
static unsigned lies, sessions, opened, written, still_sound, failures;

/* ---------------------------------------------------------------------
 * Memory of the engine.
 */

static int64_t in_use, peak;

void *__real_malloc (size_t size);
void *__real_calloc (size_t n, size_t size);
void *__real_realloc (void *p, size_t size);
void *__real_aligned_alloc (size_t alignment, size_t size);
void __real_free (void *p);
void *__wrap_malloc (size_t size);
void *__wrap_calloc (size_t n, size_t size);
void *__wrap_realloc (void *p, size_t size);
void *__wrap_aligned_alloc (size_t alignment, size_t size);
void __wrap_free (void *p);

static void *
count (void *p, bool gone)
{
  if (memory_in_engine && p) {
    in_use += gone ? -(int64_t) malloc_usable_size (p)
                   : (int64_t) malloc_usable_size (p);
    if (in_use > peak)
      peak = in_use;
  }
  return p;
}

void *
__wrap_malloc (size_t size)
{
  return count (__real_malloc (size), false);
}

void *
__wrap_calloc (size_t n, size_t size)
{
  return count (__real_calloc (n, size), false);
}

void *
__wrap_realloc (void *p, size_t size)
{
  count (p, true);
  return count (__real_realloc (p, size), false);
}

void *
__wrap_aligned_alloc (size_t alignment, size_t size)
{
  return count (__real_aligned_alloc (alignment, size), false);
}

void
__wrap_free (void *p)
{
  __real_free (count (p, true));
}

/* ---------------------------------------------------------------------
 * Ways to use an image.
 */

#define ALL (UINT64_C (1) << 40)

static const struct hostile_request writing[] = {
  { .kind = HOSTILE_WRITE, .offset = 0, .length = 512 },
  { .kind = HOSTILE_FLUSH },
  { .kind = HOSTILE_WRITE, .offset = 700, .length = 3000 },
  { .kind = HOSTILE_WRITE, .offset = 0, .length = ALL },
  { .kind = HOSTILE_READ, .offset = 0, .length = ALL },
  { .kind = HOSTILE_SETTLE },
  { .kind = HOSTILE_ZERO, .offset = 1024, .length = 9000 },
  { .kind = HOSTILE_WRITE, .offset = 2048, .length = 20000 },
  { .kind = HOSTILE_TRIM, .offset = 0, .length = 30000 },
  { .kind = HOSTILE_FLUSH },
  { .kind = HOSTILE_WRITE, .offset = 0, .length = ALL },
  { .kind = HOSTILE_EXTENTS, .offset = 0, .length = 1 << 20 },
  { .kind = HOSTILE_REOPEN },
  { .kind = HOSTILE_WRITE, .offset = 512, .length = 16384 },
};

static const struct hostile_request freeing[] = {
  { .kind = HOSTILE_TRIM, .offset = 0, .length = 1 << 20 },
  { .kind = HOSTILE_FLUSH },
  { .kind = HOSTILE_FLUSH },
  { .kind = HOSTILE_WRITE, .offset = 0, .length = ALL },
  { .kind = HOSTILE_SETTLE },
  { .kind = HOSTILE_ZERO, .offset = 0, .length = 1 << 20 },
  { .kind = HOSTILE_FLUSH },
  { .kind = HOSTILE_WRITE, .offset = 0, .length = 32768 },
  { .kind = HOSTILE_ZERO, .offset = 0, .length = 1 << 20,
    .flags = IMAGE_ZERO_UNMAP },
  { .kind = HOSTILE_SETTLE, .flags = 1 },
  { .kind = HOSTILE_SETTLE, .flags = 1 },
  { .kind = HOSTILE_WRITE, .offset = 1000, .length = 40000 },
  { .kind = HOSTILE_READ, .offset = 0, .length = ALL },
};

/* Step by step, as what was freed is used again. */
static const struct hostile_request pieces[] = {
  { .kind = HOSTILE_ZERO, .offset = 0, .length = 4096,
    .flags = IMAGE_ZERO_UNMAP | IMAGE_ZERO_FAST },
  { .kind = HOSTILE_TRIM, .offset = 8192, .length = 512 },
  { .kind = HOSTILE_FLUSH },
  { .kind = HOSTILE_WRITE, .offset = 512, .length = 512 },
  { .kind = HOSTILE_WRITE, .offset = 32768, .length = 512 },
  { .kind = HOSTILE_FLUSH },
  { .kind = HOSTILE_WRITE, .offset = 20480, .length = 512 },
  { .kind = HOSTILE_ZERO, .offset = 512, .length = 100 },
  { .kind = HOSTILE_WRITE, .offset = 24576, .length = 4096 },
  { .kind = HOSTILE_TRIM, .offset = 0, .length = 1 << 20 },
  { .kind = HOSTILE_WRITE, .offset = ALL - 1, .length = 512 },
  { .kind = HOSTILE_SETTLE },
  { .kind = HOSTILE_WRITE, .offset = 0, .length = 65536 },
};

/* Clusters that share, lose and get back their place. */
static const struct hostile_request packing[] = {
  { .kind = HOSTILE_WRITE, .offset = 0, .length = ALL },
  { .kind = HOSTILE_FLUSH },
  { .kind = HOSTILE_WRITE, .offset = 0, .length = 16384,
    .flags = HOSTILE_NOISE },
  { .kind = HOSTILE_WRITE, .offset = 700, .length = 3000 },
  { .kind = HOSTILE_WRITE, .offset = 4096, .length = 16384,
    .flags = HOSTILE_ZEROS },
  { .kind = HOSTILE_FLUSH },
  { .kind = HOSTILE_WRITE, .offset = 0, .length = 32768 },
  { .kind = HOSTILE_TRIM, .offset = 8192, .length = 8192 },
  { .kind = HOSTILE_REOPEN },
  { .kind = HOSTILE_WRITE, .offset = 4096, .length = ALL },
  { .kind = HOSTILE_READ, .offset = 0, .length = ALL },
};

static const struct way {
  const char *name;
  bool writable, check;
  bool dirty;                   /* with the dirty bit set */
  bool show;                    /* its snapshot, or its first bitmap */
  bool compress;                /* what is written */
  const struct hostile_request *request;
  size_t requests;
} ways[] = {
#define REQUESTS(list) list, sizeof list / sizeof list[0]
  { "read", .check = true },
  { "write", true, false, false, false, false, REQUESTS (writing) },
  { "free", true, false, false, false, false, REQUESTS (freeing) },
  { "pieces", true, true, false, false, false, REQUESTS (pieces) },
  { "dirty", true, false, true, false, false, REQUESTS (writing) },
  { "show", true, false, false, true, false, REQUESTS (pieces) },
  { "compress", true, false, false, false, true, REQUESTS (packing) },
};
#define WAYS (sizeof ways / sizeof ways[0])

static char name[LIE_NAME];     /* of the lie at hand */

static void
hang (int sig)
{
  static const char message[] = " hangs\n";

  (void) sig;
  if (write (STDOUT_FILENO, name, strlen (name)) < 0
      || write (STDOUT_FILENO, message, sizeof message - 1) < 0)
    _exit (2);
  _exit (1);
}

static void
use (const struct lie *lie, const struct way *way)
{
  const struct itimerval limit = { .it_value.tv_sec = HANG_SECONDS };
  struct memory_file file[MEMORY_FILES] = { { 0 } };
  struct hostile_run run = {
    .file = file, .writable = way->writable, .check = way->check,
    .request = way->request, .requests = way->requests,
    .write.compress = way->compress,
  };
  uint64_t held = 0;

  if (way->show) {
    run.snapshot = lie->at->snapshots ? "1" : NULL;
    run.bitmap = lie->at->bitmaps ? "records" : NULL;
    if (!lie->at->snapshots && !lie->at->bitmaps)
      return;
  }
  if (way->dirty && hostile_get (&lie->file[MEMORY_IMAGE], 4, 4) != 3)
    return;
  for (unsigned i = 0; i < MEMORY_FILES; i++) {
    memory_file_copy (&file[i], &lie->file[i]);
    held += lie->file[i].size;
  }
  if (way->dirty)
    hostile_put (&file[MEMORY_IMAGE], 79, 1,
                 hostile_get (&file[MEMORY_IMAGE], 79, 1) | 1);
  in_use = peak = 0;
  setitimer (ITIMER_VIRTUAL, &limit, NULL);
  if (!hostile_run (&run)) {
    failures++;
    printf ("FAIL: %s, %s: %s\n", name, way->name, run.failure);
  }
  if (peak > (int64_t) (MEMORY_MAX + 2 * held)) {
    failures++;
    printf ("FAIL: %s, %s: %" PRIi64 " bytes of memory\n", name, way->name,
            peak);
  }
  sessions++;
  opened += run.opened;
  written += run.could_write;
  still_sound += run.sound;
  memory_files_free (file);
}

static void
tell (const struct lie *lie)
{
  const unsigned sound_before = still_sound, sessions_before = sessions;

  if (wanted ? lie->is_true || strncmp (wanted, lie->name, strlen (wanted)) != 0
             : lie->is_true && listing)
    return;
  snprintf (name, sizeof name, "%s", lie->name);
  lies += !lie->is_true;
  if (listing)
    puts (name);
  for (size_t i = 0; i < WAYS && !listing; i++)
    if (!brief || !ways[i].compress || lies % 4 == 0)
      use (lie, &ways[i]);
  /* Shown images are not compared. */
  if (!listing && lie->is_true
      && still_sound - sound_before + 2 < sessions - sessions_before) {
    failures++;
    printf ("FAIL: %s: the image-maker's image is not sound\n", name);
  }
}

int
main (int argc, char *argv[])
{
  const time_t start = time (NULL);

  setvbuf (stdout, NULL, _IOLBF, 0);
  signal (SIGVTALRM, hang);
  listing = argc > 1 && strcmp (argv[1], "list") == 0;
  wanted = argc > 1 && !listing ? argv[1] : NULL;
  if (wanted)
    setenv ("QCOW2EXT_TEST_VERBOSE", "1", 1);
  else
    brief = getenv ("QCOW2EXT_TEST_SHORT");

  lies_tell (tell);
  if (listing)
    return 0;
  printf ("%u lies, each in %zu ways: %u sessions, %u of them opened, %u "
          "could write, %u with an image that was sound; %u failures, %ld "
          "seconds\n", lies, WAYS, sessions, opened, written, still_sound,
          failures, (long) (time (NULL) - start));
  return failures || lies == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
