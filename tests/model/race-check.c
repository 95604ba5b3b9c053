/* qcow2ext: is what a race has left right?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "disk/format.h"
#include "image-checker.h"
#include "race-check.h"
#include "race-cuts.h"
#include "race-orders.h"

struct pristine pristine;

void
race_check_results (struct run *run)
{
  for (unsigned n = 0; n < MAX_ALL; n++) {
    const struct done *d = &run->done[n];

    if (d->request == NULL || d->result == 0)
      continue;
    if (run->race->fault.nth == 0 || d->result != -EIO
        || d->request->kind == READ)
      race_fail (run, "request %u of thread %u fails: %s", n % MAX_REQUESTS,
                 n / MAX_REQUESTS, strerror (-d->result));
  }
}

void
race_check_reads (struct run *run)
{
  uint32_t allowed[MAX_REGIONS];

  /* A read may see what is half done by others: any source that is there. */
  memset (allowed, 0, sizeof allowed);
  for (unsigned i = 0; i < MAX_REGIONS; i++)
    allowed[i] = FROM_BEGINNING;
  for (unsigned n = 0; n < MAX_ALL; n++) {
    const struct request *q = run->done[n].request;

    for (unsigned i = 0; q && i + 1 < run->cuts; i++)
      if (run->cut[i] >= q->offset && run->cut[i] < q->offset + q->length)
        allowed[i] |= q->kind == WRITE ? FROM_WRITE (n)
          : q->kind == ZERO || q->kind == TRIM ? FROM_NOWHERE : 0;
  }
  for (unsigned n = 0; n < MAX_ALL; n++) {
    const struct done *d = &run->done[n];

    if (d->request && d->request->kind == READ && d->result == 0)
      race_compare (run, allowed, d->content, d->request->offset,
                    d->request->length, "a read");
  }
}

void
race_find_seen (struct run *run, struct done *d)
{
  const struct request *q = d->request;

  for (unsigned i = 0; i + 1 < run->cuts; i++) {
    const uint64_t from = run->cut[i], n = run->cut[i + 1] - from;

    if (from < q->offset || from >= q->offset + q->length)
      continue;
    for (unsigned s = 0; s < MAX_ALL + 2; s++) {
      const struct request *w = s < 2 ? NULL : run->done[s - 2].request;

      if (s >= 2 && (w == NULL || w->kind != WRITE || from < w->offset
                     || from >= w->offset + w->length))
        continue;
      if (race_is_from (run, 1U << s, from, n, d->content + (from - q->offset)))
        d->seen[i] |= 1U << s;
    }
  }
}

/* A bitmap that says that it is true has a bit for all that has changed. */
static void
check_bitmaps (struct run *run, const struct checker *c, bool settled,
               const char *where)
{
  for (unsigned i = 0; i < c->bitmaps; i++) {
    const uint64_t granule = c->bitmap[i].granule;

    if (!(c->bitmap[i].flags & QCOW2_BITMAP_AUTO))
      continue;
    if (c->bitmap[i].flags & QCOW2_BITMAP_IN_USE) {
      if (settled && !(pristine.in_use >> i & 1))
        race_fail (run, "%s: bitmap %u is in use", where, i);
      continue;
    }
    for (uint64_t at = 0, g = 0; at < c->size; at += granule, g++) {
      const uint64_t n = c->size - at < granule ? c->size - at : granule;

      if (!c->bitmap[i].bits[g]
          && memcmp (c->guest + at, pristine.guest + at, n) != 0)
        race_fail (run, "%s: bitmap %u misses the change of granule %" PRIu64,
                   where, i, g);
    }
  }
}

void
race_check_files (struct run *run, struct memory_file *image,
                  struct memory_file *data, const uint32_t *allowed,
                  bool settled, const char *where)
{
  static struct checker c;
  const struct image_spec *spec = run->race->spec;

  race_totals.states++;
  checker_run (&c, image, data, &run->file[MEMORY_BACKING]);
  if (c.errors)
    race_fail (run, "%s: %s", where, c.message);
  else {
    check_bitmaps (run, &c, settled, where);
    if (allowed)
      race_compare (run, allowed, c.guest, 0, spec->size, where);
    if (settled && c.leaks > run->initial_leaks)
      race_fail (run, "%s: %u clusters have leaked", where,
                 c.leaks - run->initial_leaks);
    if (settled && spec->raw && !spec->stale) {
      if (data->size < spec->size)
        race_fail (run, "%s: the raw file is short", where);
      else
        race_compare (run, allowed, data->bytes, 0, spec->size,
                      "the raw file after settling");
    }
  }
}

size_t
race_flushed_event (const struct run *run, size_t log)
{
  size_t event = 0;

  for (unsigned t = 0; t < run->race->threads; t++)
    for (unsigned i = 0; i < run->race->n_requests[t]; i++) {
      const struct done *d = &run->done[t * MAX_REQUESTS + i];

      if (d->request->kind == FLUSH && d->result == 0 && d->log <= log
          && d->begin > event)
        event = d->begin;
    }
  return event;
}

void
race_check_flushes (struct run *run, size_t first)
{
  struct memory_file durable[2] = { 0 }, all[2] = { 0 };
  size_t applied[2] = { 0, 0 };
  uint32_t allowed[MAX_REGIONS];
  bool known = run->initial_durable;
  size_t event;

  for (unsigned f = 0; f < 2; f++) {
    memory_file_copy (&durable[f], &run->start[f]);
    memory_file_copy (&all[f], &run->start[f]);
  }
  for (size_t i = 0; i < run->log.count && run->failure[0] == '\0'; i++) {
    const struct memory_op *op = &run->log.op[i];

    if (op->kind != MEMORY_FLUSH) {
      memory_file_apply (&all[op->file], op);
      continue;
    }
    if (op->failed)
      break;                    /* nobody knows what is there */
    for (size_t *j = &applied[op->file]; *j < i; ++*j)
      if (run->log.op[*j].file == op->file
          && run->log.op[*j].kind != MEMORY_FLUSH)
        memory_file_apply (&durable[op->file], &run->log.op[*j]);
    if (i < first)
      continue;
    event = race_flushed_event (run, i + 1);
    if (event)
      known = true;
    race_allow (run, ended_must, event, SIZE_MAX, allowed);
    race_check_files (run, &durable[0], &durable[1], known ? allowed : NULL,
                      false, "cut after a flush");
    race_check_files (run, &all[0], &all[1], known ? allowed : NULL, false,
                      "cut after a flush, with all that was written");
  }
  for (unsigned f = 0; f < 2; f++) {
    memory_file_free (&durable[f]);
    memory_file_free (&all[f]);
  }
}

/* The engine opens a state and reads what the checker has found to be right. */
static void
reopen (struct run *run, struct memory_file state[2], const uint32_t *allowed)
{
  struct memory_file file[MEMORY_FILES] = {
    state[0], state[1], run->file[MEMORY_BACKING]
  };
  struct files files = { .file = file };
  uint8_t *disk = malloc (run->race->spec->size);
  struct image *image;

  if (disk == NULL)
    abort ();
  if (files_open (&files, false, 0, &image) < 0)
    race_fail (run, "after a cut the image cannot be opened");
  else {
    if (image_read (image, disk, run->race->spec->size, 0) < 0)
      race_fail (run, "after a cut the disk cannot be read");
    else if (allowed)
      race_compare (run, allowed, disk, 0, run->race->spec->size,
                    "cut, and opened again");
    image_close (image);
  }
  free (disk);
}

struct cut_view {
  struct run *run;
  size_t cut;                   /* allowed is for this one */
  uint32_t allowed[MAX_REGIONS];
  bool known;
};

static bool
look_at_cut (void *opaque, struct memory_file state[2], size_t cut)
{
  struct cut_view *v = opaque;
  struct run *run = v->run;

  if (v->cut != cut) {
    const size_t event = race_flushed_event (run, cut);

    v->cut = cut;
    v->known = run->initial_durable || event;
    race_allow (run, ended_must, event, cut, v->allowed);
  }
  race_check_files (run, &state[0], &state[1], v->known ? v->allowed : NULL,
                    false, "cut");
  if (run->failure[0] == '\0')
    reopen (run, state, v->known ? v->allowed : NULL);
  return run->failure[0] == '\0';
}

/* Of one race.  Its place is drawn from the hash, and whoever is there before
 * goes: then some record is cut twice.
 */
static uint64_t records[1 << 18];

static bool
is_new_record (const struct run *run)
{
  uint64_t hash = race_cuts_hash (&run->log);
  uint64_t *place;

  for (unsigned n = 0; n < MAX_ALL; n++)
    hash = (hash + run->done[n].log_begin * 1021 + run->done[n].log + n)
      * UINT64_C (0xa0761d6478bd642f);
  hash ^= hash >> 31;
  place = &records[hash % (sizeof records / sizeof records[0])];
  if (*place == hash)
    return false;
  *place = hash;
  return true;
}

void
race_check_cuts (struct run *run, size_t first)
{
  struct cut_view view = { .run = run, .cut = SIZE_MAX };
  struct race_cuts cuts = {
    .log = &run->log, .start = run->start, .first = first,
    .look = look_at_cut, .opaque = &view,
  };

  race_totals.to_cut++;
  if (!is_new_record (run))
    return;
  race_cuts_run (&cuts);
  race_totals.records++;
  race_totals.cuts += cuts.cuts;
  race_totals.cut_states += cuts.states;
}

void
race_forget_records (void)
{
  memset (records, 0, sizeof records);
}
