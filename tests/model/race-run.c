/* qcow2ext: one execution of a race, and what is checked after it.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image-checker.h"
#include "race-check.h"
#include "race-orders.h"
#include "race-run.h"

struct race_totals race_totals;

void
race_fail (struct run *run, const char *fmt, ...)
{
  va_list ap;

  if (run->failure[0])
    return;
  va_start (ap, fmt);
  vsnprintf (run->failure, sizeof run->failure, fmt, ap);
  va_end (ap);
}

static int
do_request (struct image *image, const struct request *q, uint8_t *content)
{
  int r;

  memory_in_engine = true;
  switch (q->kind) {
  case WRITE: r = image_write (image, content, q->length, q->offset); break;
  case READ: r = image_read (image, content, q->length, q->offset); break;
  case ZERO: r = image_zero (image, q->length, q->offset, q->flags); break;
  case TRIM: r = image_trim (image, q->length, q->offset); break;
  case FLUSH: r = image_flush (image); break;
  default: r = image_settle (image, q->flags); break;
  }
  memory_in_engine = false;
  return r;
}

/* A write's bytes tell which it is, and where they belong. */
static uint8_t *
make_content (const struct request *q, unsigned number)
{
  const uint64_t first = q->offset / MEMORY_SECTOR;
  const uint64_t end =
    (q->offset + q->length + MEMORY_SECTOR - 1) / MEMORY_SECTOR;
  uint8_t *whole = malloc ((end - first) * MEMORY_SECTOR + 1);
  uint8_t *content = calloc (1, q->length + 1);

  if (whole == NULL || content == NULL)
    abort ();
  for (uint64_t i = first; i < end; i++)
    make_pattern (whole + (i - first) * MEMORY_SECTOR,
                  PATTERN_FIRST + 100 + number, i);
  if (q->kind == WRITE)
    memcpy (content, whole + q->offset % MEMORY_SECTOR, q->length);
  free (whole);
  return content;
}

static void
do_thread (void *opaque, unsigned thread)
{
  struct run *run = opaque;
  const struct race *race = run->race;

  for (unsigned i = 0; i < race->n_requests[thread]; i++) {
    struct done *d = &run->done[thread * MAX_REQUESTS + i];

    /* Only one thread runs at a time. */
    d->begin = ++run->events;
    d->log_begin = run->log.count;
    d->result = do_request (run->image, d->request, d->content);
    d->end = ++run->events;
    d->log = run->log.count;
  }
}

static void
hook (void *opaque, const struct memory_op *op, bool is_before)
{
  (void) opaque, (void) is_before;
  sched_point (memory_kind_name (op->kind));
}

static void
make_pristine (const struct image_spec *spec)
{
  struct checker c = { 0 };

  if (pristine.spec == spec)
    return;
  free (pristine.guest);
  memory_files_free (pristine.file);
  memset (&pristine, 0, sizeof pristine);
  pristine.spec = spec;
  pristine.guest = malloc (spec->size);
  if (pristine.guest == NULL)
    abort ();
  make_image (spec, &pristine.file[MEMORY_IMAGE],
              &pristine.file[MEMORY_DATA], &pristine.file[MEMORY_BACKING],
              pristine.guest);
  checker_run (&c, &pristine.file[MEMORY_IMAGE],
               &pristine.file[MEMORY_DATA], &pristine.file[MEMORY_BACKING]);
  pristine.leaks = c.leaks;
  for (unsigned i = 0; i < c.bitmaps; i++)
    if (c.bitmap[i].flags & QCOW2_BITMAP_IN_USE)
      pristine.in_use |= 1U << i;
  checker_free (&c);
}

static void
set_up (struct run *run, struct files *files)
{
  const struct race *race = run->race;
  const struct image_spec *spec = race->spec;
  int r;

  for (unsigned i = 0; i < MEMORY_FILES; i++) {
    memory_file_copy (&run->file[i], &pristine.file[i]);
    memory_file_copy (&run->start[i], &pristine.file[i]);
  }
  run->initial_leaks = pristine.leaks;
  run->initial = malloc (spec->size);
  run->initial_durable = true;
  memory_log_init (&run->log);
  r = files_open (files, true, race->l2_cache, &run->image);
  if (r < 0 || run->initial == NULL || !image_is_writable (run->image)) {
    fprintf (stderr, "%s cannot be opened\n", spec->name);
    abort ();
  }
  for (unsigned i = 0; i < race->n_setup; i++) {
    uint8_t *content = make_content (&race->setup[i], 50 + i);

    if (do_request (run->image, &race->setup[i], content) < 0)
      race_fail (run, "preparing fails");
    if (race->setup[i].kind != SETTLE)
      run->initial_durable = race->setup[i].kind == FLUSH;
    free (content);
  }
  if (image_read (run->image, run->initial, spec->size, 0) < 0)
    race_fail (run, "preparing leads nowhere");

  race_add_cut (run, 0);
  race_add_cut (run, spec->size);
  for (unsigned t = 0; t < race->threads; t++)
    for (unsigned i = 0; i < race->n_requests[t]; i++) {
      const struct request *q = &race->request[t][i];
      struct done *d = &run->done[t * MAX_REQUESTS + i];

      d->request = q;
      d->content = make_content (q, t * MAX_REQUESTS + i);
      d->end = SIZE_MAX;
      if (q->length) {
        race_add_cut (run, q->offset);
        race_add_cut (run, q->offset + q->length);
      }
    }
}

/* The end: the image is settled and closed. */
static void
settle (struct run *run)
{
  const struct request settle_now = { .kind = SETTLE };
  const bool faulty = run->race->fault.nth;
  uint32_t allowed[MAX_REGIONS];
  uint8_t *now = malloc (run->race->spec->size);

  memset (&run->log.fault, 0, sizeof run->log.fault);
  for (unsigned n = 0; n < MAX_ALL; n++)
    if (run->done[n].request && run->done[n].request->kind == READ
        && run->done[n].result == 0)
      race_find_seen (run, &run->done[n]);
  race_allow (run, all_must, 0, SIZE_MAX, allowed);
  if (now == NULL || image_read (run->image, now, run->race->spec->size, 0) < 0)
    race_fail (run, "the disk cannot be read at the end");
  else
    race_compare (run, allowed, now, 0, run->race->spec->size, "at the end");
  free (now);
  if (do_request (run->image, &settle_now, NULL) < 0 && !faulty)
    race_fail (run, "settling fails");
  image_close (run->image);
  run->image = NULL;
  if (run->failure[0])
    return;
  if (faulty)                   /* what was never stored need not be there */
    race_allow (run, ended_must, race_flushed_event (run, SIZE_MAX), SIZE_MAX,
                allowed);
  race_check_files (run, &run->file[MEMORY_IMAGE], &run->file[MEMORY_DATA],
                    allowed, !faulty, "after settling");
}

bool
race_run (const struct race *race, const struct schedule *schedule,
          bool with_flushes, bool with_cuts, struct sched_result *result,
          char failure[400])
{
  struct run run = { .race = race };
  struct files files = {
    .file = run.file, .log = &run.log, .no_discard = race->spec->no_discard,
    .write = race->spec->write
  };
  size_t first;

  make_pristine (race->spec);
  set_up (&run, &files);
  first = run.log.count;
  run.log.hook = hook;
  run.log.in_halves = race->spec->encrypted;
  run.log.opaque = &run;
  run.log.fault = race->fault;
  sched_run (race->threads, do_thread, &run, schedule, result);
  run.log.in_halves = false;
  run.log.hook = NULL;
  if (result->deadlock) {
    snprintf (failure, 400, "a deadlock");
    return false;
  }
  race_totals.schedules++;
  for (unsigned t = 0; t < race->threads; t++)
    race_totals.points += result->passed[t];
  race_check_results (&run);
  race_check_reads (&run);
  settle (&run);
  if (with_flushes && run.failure[0] == '\0')
    race_check_flushes (&run, first);
  if (with_cuts && run.failure[0] == '\0')
    race_check_cuts (&run, first);

  memcpy (failure, run.failure, sizeof run.failure);
  if (run.image)
    image_close (run.image);
  memory_files_free (run.file);
  memory_files_free (run.start);
  for (unsigned n = 0; n < MAX_ALL; n++)
    free (run.done[n].content);
  free (run.initial);
  memory_log_clear (&run.log);
  return failure[0] == '\0';
}
