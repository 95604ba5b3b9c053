/* qcow2ext: many threads at once, for sanitizers to look at.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Threads do random requests on an image in memory.  The disk is dealt out in
 * pieces of a few sectors, so that all share clusters and tables; what is
 * one's own is compared with a model.  The last eighth belongs to all: there a
 * sector must be one that somebody wrote to just this place.  At the end the
 * image is settled and checked.
 *
 *   test-unit-stress            a fixed seed, a short while on each image
 *   test-unit-stress SECONDS    fresh seeds, for so long
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crash-workloads.h"

#define THREADS 4
#define REQUESTS 4000           /* of each thread */
#define MAX_SECTORS 24          /* of a piece */

struct stress {
  const struct image_spec *spec;
  struct image *image;
  uint64_t sectors, shared;     /* the first one that belongs to all */
  uint8_t *owner;               /* of each sector */
  uint8_t *initial, *model;     /* the disk */
  uint64_t seed;
  atomic_uint requests;
  atomic_bool failed;
};

static uint64_t total;           /* requests */

struct thread {
  struct stress *stress;
  unsigned number;
  pthread_t thread;
};

static void
fail (struct stress *s, const char *what, uint64_t sector)
{
  if (!atomic_exchange (&s->failed, true))
    printf ("FAIL: %s, seed %" PRIu64 ": %s at sector %" PRIu64 "\n",
            s->spec->name, s->seed, what, sector);
}

static bool
is_zero (const uint8_t *bytes)
{
  return bytes[0] == 0 && memcmp (bytes, bytes + 1, MEMORY_SECTOR - 1) == 0;
}

/* Is this a sector that somebody wrote to its place, or zeros, or that was
 * there in the beginning?
 */
static bool
is_plausible (const struct stress *s, const uint8_t *bytes, uint64_t sector)
{
  uint8_t pattern[MEMORY_SECTOR];
  uint32_t number = 0;

  for (unsigned i = 0; i < 4; i++)
    number = number << 8 | bytes[i];
  make_pattern (pattern, number, sector);
  return is_zero (bytes)
    || memcmp (bytes, s->initial + sector * MEMORY_SECTOR, MEMORY_SECTOR) == 0
    || (number != PATTERN_OLD
        && memcmp (bytes, pattern, sizeof pattern) == 0);
}

static int
no_extent (void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
  (void) opaque, (void) offset, (void) length, (void) type;
  return 0;
}

/* A range of sectors that are mine, or everybody's. */
static void
pick (const struct thread *t, struct rng *rng, uint64_t *first, uint64_t *n)
{
  const struct stress *s = t->stress;

  do
    *first = rng_below (rng, s->sectors);
  while (s->owner[*first] != t->number && s->owner[*first] != THREADS);
  for (*n = 1; *first + *n < s->sectors && *n < MAX_SECTORS
         && s->owner[*first + *n] == s->owner[*first]; ++*n)
    if (rng_below (rng, 8) == 0)
      break;
}

static void
compare (struct stress *s, const uint8_t *buf, uint64_t first, uint64_t n)
{
  for (uint64_t i = 0; i < n; i++) {
    const uint8_t *bytes = buf + i * MEMORY_SECTOR;

    if (s->owner[first + i] == THREADS) {
      if (!is_plausible (s, bytes, first + i))
        fail (s, "nobody's data", first + i);
    }
    else if (memcmp (bytes, s->model + (first + i) * MEMORY_SECTOR,
                     MEMORY_SECTOR) != 0)
      fail (s, "wrong data", first + i);
  }
}

static void *
work (void *opaque)
{
  const struct thread *t = opaque;
  struct stress *s = t->stress;
  struct rng rng = { s->seed * THREADS + t->number };
  uint8_t buf[MAX_SECTORS * MEMORY_SECTOR];

  for (unsigned i = 0; i < REQUESTS && !s->failed; i++) {
    const unsigned kind = rng_below (&rng, 20);
    uint64_t first, n, offset, length;
    uint8_t *model;
    bool mine;
    int r = 0;

    pick (t, &rng, &first, &n);
    offset = first * MEMORY_SECTOR;
    length = n * MEMORY_SECTOR;
    model = s->model + offset;
    mine = s->owner[first] == t->number;
    if (kind < 8) {
      for (uint64_t j = 0; j < n; j++)
        make_pattern (buf + j * MEMORY_SECTOR,
                      PATTERN_FIRST + t->number * REQUESTS + i, first + j);
      if (s->spec->write.detect_zeroes && i % 5 == 0)
        memset (buf, 0, length);
      r = image_write (s->image, buf, length, offset);
      if (mine)
        memcpy (model, buf, length);
    }
    else if (kind < 10) {
      r = image_zero (s->image, length, offset,
                      kind == 8 ? IMAGE_ZERO_UNMAP : 0);
      if (mine)
        memset (model, 0, length);
    }
    else if (kind < 12) {
      r = image_trim (s->image, length, offset);
      if (r == 0 && mine) {     /* each sector is what it was, or zeros */
        r = image_read (s->image, buf, length, offset);
        for (uint64_t j = 0; j < n; j++)
          if (is_zero (buf + j * MEMORY_SECTOR))
            memset (model + j * MEMORY_SECTOR, 0, MEMORY_SECTOR);
        compare (s, buf, first, n);
      }
    }
    else if (kind < 17) {
      r = image_read (s->image, buf, length, offset);
      compare (s, buf, first, n);
    }
    else if (kind == 17)
      r = image_flush (s->image);
    else if (kind == 18) {
      r = image_extents (s->image, length, offset, no_extent, NULL);
      image_cache (s->image, length, offset);
    }
    else if (t->number == 0)
      r = image_settle (s->image, true);
    s->requests++;
    if (r < 0)
      fail (s, strerror (-r), first);
  }
  return NULL;
}

static void
deal_out (struct stress *s, struct rng *rng)
{
  for (uint64_t i = 0; i < s->sectors;) {
    const unsigned owner = i < s->shared ? rng_below (rng, THREADS) : THREADS;

    for (uint64_t n = 1 + rng_below (rng, 6); n-- > 0 && i < s->sectors; i++)
      s->owner[i] = owner;
  }
  for (unsigned i = 0; i < THREADS; i++)
    s->owner[i] = i;            /* nobody goes without */
}

static void
check_end (struct stress *s, const struct files *f, unsigned leaks)
{
  struct checker c = { 0 };

  checker_run (&c, &f->file[MEMORY_IMAGE], &f->file[MEMORY_DATA],
               &f->file[MEMORY_BACKING]);
  if (c.errors)
    fail (s, c.message, 0);
  else if (c.leaks > leaks)
    fail (s, "leaked clusters", 0);
  else
    compare (s, c.guest, 0, s->sectors);
  checker_free (&c);
}

static bool
run (const struct image_spec *spec, uint64_t seed)
{
  struct stress s = {
    .spec = spec, .seed = seed, .sectors = spec->size / MEMORY_SECTOR
  };
  struct memory_file file[MEMORY_FILES] = { 0 };
  struct files files = { .file = file, .no_discard = spec->no_discard,
                         .write = spec->write };
  struct thread thread[THREADS];
  struct rng rng = { seed };
  struct checker c = { 0 };
  unsigned leaks;

  s.shared = s.sectors - s.sectors / 8;
  s.owner = malloc (s.sectors);
  s.initial = malloc (spec->size);
  s.model = malloc (spec->size);
  if (s.owner == NULL || s.initial == NULL || s.model == NULL)
    abort ();
  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], s.initial);
  memcpy (s.model, s.initial, spec->size);
  checker_run (&c, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
               &file[MEMORY_BACKING]);
  leaks = c.leaks;
  checker_free (&c);
  deal_out (&s, &rng);

  /* With a cache for one table or two, now and then. */
  if (files_open (&files, true, seed % 2 ? 2 << spec->cluster_bits : 0,
                  &s.image) < 0)
    abort ();
  memory_in_engine = false;
  for (unsigned i = 0; i < THREADS; i++) {
    thread[i] = (struct thread) { .stress = &s, .number = i };
    if (pthread_create (&thread[i].thread, NULL, work, &thread[i]) != 0)
      abort ();
  }
  for (unsigned i = 0; i < THREADS; i++)
    pthread_join (thread[i].thread, NULL);
  if (image_settle (s.image, false) < 0)
    fail (&s, "settling fails", 0);
  image_close (s.image);
  if (!s.failed)
    check_end (&s, &files, leaks);

  memory_files_free (file);
  free (s.owner);
  free (s.initial);
  free (s.model);
  total += s.requests;
  return !s.failed;
}

int
main (int argc, char *argv[])
{
  const time_t begin = time (NULL);
  const long seconds = argc > 1 ? strtol (argv[1], NULL, 0) : 0;
  uint64_t seed = seconds ? (uint64_t) begin << 20 : 1;
  unsigned failures = 0, rounds = 0;

  crash_quiet ();
  setvbuf (stdout, NULL, _IOLBF, 0);
  do
    for (const struct image_spec *s = crash_specs; s->name; s++, rounds++)
      failures += !run (s, seed++);
  while (time (NULL) - begin < seconds);
  printf ("%u images, %" PRIu64 " requests, %u failures, %ld seconds\n", rounds,
          total, failures, (long) (time (NULL) - begin));
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
