/* qcow2ext: whatever fails, nothing is lost and nothing breaks.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The nth operation of a kind fails, once or from then on, for n = 1, 2, 3...
 * until a workload ends without having met it.  Each time the error must reach
 * the client that asked, the image must be sound, with what was flushed in it, at
 * the end and after a power cut; after a failed flush it is not written to any
 * more.
 *
 *   test-unit-faults                    what 'make check-full' does
 *   test-unit-faults SECONDS            with fresh seeds, for so long
 *   test-unit-faults IMAGE SEED KIND ERRNO LANDED LASTING NTH
 *                                       one again, as printed
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crash-workloads.h"

#define STATES_OF_ONE 40

static struct crash_stats total;
static unsigned failures, runs;

/* When to end; 0: when all is done. */
static time_t until;

static bool
time_is_over (void)
{
  return until && time (NULL) >= until;
}

/* Returns whether the fault was met. */
static bool
run (const struct image_spec *spec, uint64_t seed,
     const struct memory_fault *fault, uint64_t max_states)
{
  const struct crash_options options = {
    .seed = seed, .max_states = max_states,
  };
  const uint64_t met = total.faults;
  struct rng rng = { seed };
  struct workload workload;
  char failure[1024];

  workload_random (&workload, spec, &rng, 12);
  /* One request at a time, mostly, so that it is always the same operation
   * that fails.
   */
  for (size_t i = 0; i < workload.steps && seed % 4 != 3; i++)
    workload.step[i].pause.nth = 0;
  workload.fault = *fault;
  runs++;
  if (!crash_run (&workload, &options, &total, failure)) {
    failures++;
    printf ("FAIL: %s %" PRIu64 " %d %d %d %d %u (%s): %s\n", spec->name,
            seed, fault->kind, fault->error, fault->landed, fault->lasting,
            fault->nth, memory_kind_name (fault->kind), failure);
  }
  workload_free (&workload);
  return total.faults > met;
}

/* The linker sends the engine's allocations here. */
void *__real_malloc (size_t size);
void *__real_calloc (size_t n, size_t size);
void *__real_realloc (void *p, size_t size);
void *__real_aligned_alloc (size_t alignment, size_t size);
void *__wrap_malloc (size_t size);
void *__wrap_calloc (size_t n, size_t size);
void *__wrap_realloc (void *p, size_t size);
void *__wrap_aligned_alloc (size_t alignment, size_t size);

char *__real_strdup (const char *s);
char *__real_strndup (const char *s, size_t n);
char *__wrap_strdup (const char *s);
char *__wrap_strndup (const char *s, size_t n);

char *
__wrap_strdup (const char *s)
{
  return memory_alloc_fails () ? NULL : __real_strdup (s);
}

char *
__wrap_strndup (const char *s, size_t n)
{
  return memory_alloc_fails () ? NULL : __real_strndup (s, n);
}

void *
__wrap_malloc (size_t size)
{
  return memory_alloc_fails () ? NULL : __real_malloc (size);
}

void *
__wrap_calloc (size_t n, size_t size)
{
  return memory_alloc_fails () ? NULL : __real_calloc (n, size);
}

void *
__wrap_realloc (void *p, size_t size)
{
  return memory_alloc_fails () ? NULL : __real_realloc (p, size);
}

void *
__wrap_aligned_alloc (size_t alignment, size_t size)
{
  return memory_alloc_fails () ? NULL : __real_aligned_alloc (alignment, size);
}

/* Opening fails as well as anything. */
static void
open_all (const struct image_spec *spec, int kind)
{
  for (unsigned nth = 1;; nth++) {
    struct memory_file file[MEMORY_FILES] = { 0 };
    struct memory_log log;
    struct files files = { .file = file, .log = &log };
    uint8_t *guest = malloc (spec->size);
    struct image *image;
    unsigned met;
    int r;

    memory_log_init (&log);
    make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
                &file[MEMORY_BACKING], guest);
    log.fault = (struct memory_fault) {
      .kind = kind, .file = -1, .nth = nth,
      .error = kind == MEMORY_ALLOC ? ENOMEM : EIO,
    };
    memory_alloc_log = &log;
    r = files_open (&files, true, 0, &image);
    memory_alloc_log = NULL;
    met = log.faults_met;
    if (r == 0) {
      if (met) {
        failures++;
        printf ("FAIL: %s: opening does not notice that %s %u fails\n",
                spec->name, memory_kind_name (kind), nth);
      }
      image_close (image);
    }
    else if (r != -log.fault.error) {
      failures++;
      printf ("FAIL: %s: opening fails with %s where %s %u does\n", spec->name,
              strerror (-r), memory_kind_name (kind), nth);
    }
    total.faults += met;
    runs++;
    memory_files_free (file);
    memory_log_clear (&log);
    free (guest);
    if (met == 0 || time_is_over ())
      return;
  }
}

static void
run_all (const struct image_spec *spec, uint64_t seed)
{
  static const struct {
    int error;
    bool lasting;
  } how[] = {
    { EIO, false }, { ENOSPC, false }, { EIO, true }, { ENOSPC, true },
    { ENOMEM, false },
  };

  /* Looking at a large one takes longer. */
  const uint64_t states = STATES_OF_ONE / (1 + (spec->size >> 17));
  /* In the short form each third one. */
  const unsigned step = 3 / crash_share (3);

  open_all (spec, MEMORY_READ);
  open_all (spec, MEMORY_ALLOC);

  for (int kind = 0; kind < MEMORY_KINDS; kind++)
    for (unsigned e = 0; e < sizeof how / sizeof how[0]; e++)
      /* What lasts need not begin everywhere. */
      for (unsigned nth = 1 + seed % step;;
           nth += how[e].lasting ? 1 + nth / 2 : step) {
        const struct memory_fault fault = {
          .kind = kind, .file = -1, .nth = nth, .error = how[e].error,
          .landed = (nth + seed) % 3, .lasting = how[e].lasting,
        };

        /* Reading never fails for want of space, nor an allocation for
         * anything but memory.
         */
        if (time_is_over ()
            || (kind == MEMORY_READ && how[e].error == ENOSPC)
            || (kind == MEMORY_ALLOC) != (how[e].error == ENOMEM)
            || !run (spec, seed, &fault, states))
          break;
      }
}

int
main (int argc, char *argv[])
{
  const time_t begin = time (NULL);
  uint64_t seed = 1;

  crash_quiet ();
  setvbuf (stdout, NULL, _IOLBF, 0);
  if (argc == 8) {
    const struct memory_fault fault = {
      .kind = atoi (argv[3]), .file = -1, .error = atoi (argv[4]),
      .landed = atoi (argv[5]), .lasting = atoi (argv[6]),
      .nth = atoi (argv[7]),
    };

    run (crash_spec (argv[1]), strtoull (argv[2], NULL, 0), &fault, 0);
  }
  else if (argc == 2) {
    seed = (uint64_t) begin << 20;
    printf ("seeds from %" PRIu64 "\n", seed);
    until = begin + strtol (argv[1], NULL, 0);
    while (!time_is_over ())
      for (const struct image_spec *s = crash_specs; s->name; s++)
        run_all (s, seed++);
  }
  else
    for (const struct image_spec *s = crash_specs; s->name; s++)
      run_all (s, seed++);

  printf ("%" PRIu64 " faults in %u runs, %" PRIu64 " distinct states, %u "
          "failures, %ld seconds\n", total.faults, runs, total.distinct,
          failures, (long) (time (NULL) - begin));
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
