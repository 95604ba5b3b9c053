/* qcow2ext: requests against each other, in every order.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each race is two or three threads with a request or a few.  One thread is
 * stopped at its kth point, then another at its jth, then the first runs to its
 * end; for all k and j there are, and whoever begins.  (See scheduler.h for
 * what a point is.)  After that come random schedules, which switch more
 * often.  Each time:
 *
 *   - nobody waits for ever
 *   - what is read is what the requests lead to in an order in which they may
 *     have happened: no other bytes, nobody's who shared but the cluster
 *   - of each part of the disk, one such order leads to what is there at the
 *     end and to all that was read of it, but for a read that saw two states
 *   - the files, with all that was written, with what was flushed by each
 *     flush, and after settling, have no errors, and hold what they should
 *
 *   test-unit-races                        what 'make check-full' does
 *   test-unit-races all [RACE]             all schedules, without a limit
 *   test-unit-races RACE IMAGE VARIANT SEGMENTS...
 *                                          one again, as printed
 *   test-unit-races mutants                only the broken rules
 *   test-unit-races cut [RACE]             all schedules, and in each of them
 *                                          a power cut at every operation
 *
 * Schedules that lead to the same record of operations, with requests that
 * begin and end at the same places of it, differ only in the order of steps
 * that commute: after the first of them the power is not cut again.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/is-zero.h"
#include "crash-workloads.h"
#include "disk/format.h"
#include "mutant.h"
#include "race-cuts.h"
#include "races.h"
#include "scheduler.h"

const char *qcow2_mutant;

#define MAX_ALL (SCHED_THREADS * MAX_REQUESTS)
#define MAX_REGIONS (2 * MAX_ALL + 2)

/* How many schedules of two threads are tried of each race, in make check,
 * and how many random ones.
 */
#define LIMIT 90
#define RANDOM 20
#define CUTS_EVERY 10           /* of these schedules the power is cut in */

/* --- one execution --- */

/* Where bytes may come from: the beginning, nowhere (zeros), or a write. */
#define FROM_BEGINNING 1
#define FROM_NOWHERE 2
#define FROM_WRITE(i) (4U << (i))

/* No order that began like this leads to what was read. */
#define IMPOSSIBLE (1U << 31)
static_assert (MAX_ALL < 29, "a write is not \"impossible\"");

struct done {
  const struct request *request;
  uint8_t *content;             /* of a write; or what was read */
  size_t begin, end;            /* events; SIZE_MAX: never */
  size_t log_begin, log;        /* operations at its beginning, at its end */
  int result;
  uint32_t seen[MAX_REGIONS];   /* of a read: the sources that each region may
                                   be from; 0: from more than one */
};

struct run {
  const struct race *race;
  struct memory_file file[MEMORY_FILES];
  struct memory_log log;
  struct image *image;
  size_t events;
  struct done done[MAX_ALL];    /* thread by thread, MAX_REQUESTS each */
  uint8_t *initial;             /* before the threads */
  bool initial_durable;         /* was that flushed? */
  unsigned initial_leaks;
  struct memory_file start[MEMORY_FILES];

  /* The disk is cut where requests begin and end. */
  uint64_t cut[MAX_REGIONS];
  unsigned cuts;
  char failure[400];
};

static struct {
  uint64_t schedules, states, points;
  uint64_t to_cut, records, cuts, cut_states;
} total;

static void
fail (struct run *run, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

static void
fail (struct run *run, const char *fmt, ...)
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

/* --- what may be there --- */

struct order {
  const struct run *run;
  bool (*must) (const struct done *d, size_t bound);
  size_t bound;                 /* for must */
  size_t cut;                   /* operations that there were; SIZE_MAX */
  bool with_reads;              /* what was read has to fit */
  uint32_t *allowed;            /* of each region */
  unsigned next[SCHED_THREADS];
};

/* After all requests, or in a state that was flushed at a place in the log:
 * those must be in it that had ended when the flush began.
 */
static bool
all_must (const struct done *d, size_t bound)
{
  (void) d, (void) bound;
  return true;
}

static bool
ended_must (const struct done *d, size_t bound)
{
  return d->end < bound;
}

static bool
may_come_next (const struct order *o, const struct done *d)
{
  const struct run *run = o->run;

  for (unsigned t = 0; t < run->race->threads; t++)
    for (unsigned i = o->next[t]; i < run->race->n_requests[t]; i++)
      if (run->done[t * MAX_REQUESTS + i].end < d->begin)
        return false;
  return true;
}

/* Goes through all orders, with the state of each region. */
static void
explore (struct order *o, const uint32_t *state)
{
  const struct run *run = o->run;
  const struct race *race = run->race;
  bool complete = true;

  for (unsigned t = 0; t < race->threads; t++)
    for (unsigned i = o->next[t]; i < race->n_requests[t]; i++)
      if (o->must (&run->done[t * MAX_REQUESTS + i], o->bound))
        complete = false;
  if (complete)
    for (unsigned i = 0; i + 1 < run->cuts; i++)
      o->allowed[i] |= state[i] & ~IMPOSSIBLE;

  for (unsigned t = 0; t < race->threads; t++) {
    const unsigned number = t * MAX_REQUESTS + o->next[t];
    const struct done *d = &run->done[number];
    const struct request *q = d->request;
    uint32_t then_state[MAX_REGIONS];

    if (o->next[t] == race->n_requests[t] || !may_come_next (o, d)
        || d->log_begin >= o->cut)
      continue;
    for (unsigned i = 0; i + 1 < run->cuts; i++) {
      uint32_t to = 0;

      then_state[i] = state[i];
      if (run->cut[i] < q->offset
          || run->cut[i] >= q->offset + q->length || state[i] == IMPOSSIBLE)
        continue;
      if (q->kind == READ && o->with_reads && d->seen[i]) {
        to = state[i] & d->seen[i];
        then_state[i] = to ? to : IMPOSSIBLE;
        continue;
      }
      if (q->kind == WRITE)
        to = FROM_WRITE (number);
      else if (q->kind == ZERO || q->kind == TRIM)
        to = FROM_NOWHERE;
      /* Trimming may do nothing; what failed may have done all or nothing. */
      if (to && (q->kind == TRIM || d->result < 0))
        to |= state[i];
      if (to)
        then_state[i] = to;
    }
    o->next[t]++;
    explore (o, then_state);
    o->next[t]--;
  }
}

static void
add_cut (struct run *run, uint64_t at)
{
  unsigned i = run->cuts;

  for (unsigned j = 0; j < run->cuts; j++)
    if (run->cut[j] == at)
      return;
  for (; i > 0 && run->cut[i - 1] > at; i--)
    run->cut[i] = run->cut[i - 1];
  run->cut[i] = at;
  run->cuts++;
}

/* Are these the bytes of [from, from + n) from one of the sources? */
static bool
is_from (const struct run *run, uint32_t sources, uint64_t from, uint64_t n,
         const uint8_t *bytes)
{
  if ((sources & FROM_BEGINNING) && memcmp (bytes, run->initial + from, n) == 0)
    return true;
  if ((sources & FROM_NOWHERE) && is_zero (bytes, n))
    return true;
  for (unsigned i = 0; i < MAX_ALL; i++)
    if (sources & FROM_WRITE (i)) {
      const struct done *d = &run->done[i];

      if (memcmp (bytes, d->content + (from - d->request->offset), n) == 0)
        return true;
    }
  return false;
}

/* Compares a part of the disk; where is "where" it was found. */
static void
compare (struct run *run, const uint32_t *allowed, const uint8_t *bytes,
         uint64_t offset, uint64_t length, const char *where)
{
  for (unsigned i = 0; i + 1 < run->cuts; i++) {
    uint64_t from = run->cut[i] < offset ? offset : run->cut[i];
    uint64_t to = run->cut[i + 1];

    if (to > offset + length)
      to = offset + length;
    while (from < to) {
      uint64_t next = (from / MEMORY_SECTOR + 1) * MEMORY_SECTOR;

      if (next > to)
        next = to;
      if (!is_from (run, allowed[i], from, next - from,
                    bytes + (from - offset))) {
        uint64_t word = 0;

        for (unsigned b = 0; b < 8 && from + b < next; b++)
          word = word << 8 | bytes[from - offset + b];
        fail (run, "%s: at %" PRIu64 " there is %016" PRIx64 " (sources may "
              "be %#x)", where, from, word, allowed[i]);
        return;
      }
      from = next;
    }
  }
}

static void
allow (struct run *run, bool (*must) (const struct done *, size_t),
       size_t bound, size_t cut, uint32_t *allowed)
{
  struct order o = {
    .run = run, .must = must, .bound = bound, .cut = cut, .allowed = allowed,
    .with_reads = must == all_must
  };
  uint32_t state[MAX_REGIONS];

  memset (allowed, 0, MAX_REGIONS * sizeof *allowed);
  for (unsigned i = 0; i < MAX_REGIONS; i++)
    state[i] = FROM_BEGINNING;
  explore (&o, state);
}

/* What differs only with the image. */
static struct pristine {
  const struct image_spec *spec;
  struct memory_file file[MEMORY_FILES];
  uint8_t *guest;
  uint32_t in_use;              /* bitmaps that were already */
  unsigned leaks;
} pristine;

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
        fail (run, "%s: bitmap %u is in use", where, i);
      continue;
    }
    for (uint64_t at = 0, g = 0; at < c->size; at += granule, g++) {
      const uint64_t n = c->size - at < granule ? c->size - at : granule;

      if (!c->bitmap[i].bits[g]
          && memcmp (c->guest + at, pristine.guest + at, n) != 0)
        fail (run, "%s: bitmap %u misses the change of granule %" PRIu64,
              where, i, g);
    }
  }
}

/* Checks a state of the files.  allowed NULL: whatever the guest sees. */
static void
check_files (struct run *run, struct memory_file *image,
             struct memory_file *data, const uint32_t *allowed, bool settled,
             const char *where)
{
  static struct checker c;
  const struct image_spec *spec = run->race->spec;

  total.states++;
  checker_run (&c, image, data, &run->file[MEMORY_BACKING]);
  if (c.errors)
    fail (run, "%s: %s", where, c.message);
  else {
    check_bitmaps (run, &c, settled, where);
    if (allowed)
      compare (run, allowed, c.guest, 0, spec->size, where);
    if (settled && c.leaks > run->initial_leaks)
      fail (run, "%s: %u clusters have leaked", where,
            c.leaks - run->initial_leaks);
    if (settled && spec->raw && !spec->stale) {
      if (data->size < spec->size)
        fail (run, "%s: the raw file is short", where);
      else
        compare (run, allowed, data->bytes, 0, spec->size,
                 "the raw file after settling");
    }
  }
}

/* When did the last flush begin of those that had ended? */
static size_t
flushed_event (const struct run *run, size_t log)
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

/* The power goes after each flush: nothing else has reached the disk, or all
 * that was written.
 */
static void
check_flushes (struct run *run, size_t first)
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
    event = flushed_event (run, i + 1);
    if (event)
      known = true;
    allow (run, ended_must, event, SIZE_MAX, allowed);
    check_files (run, &durable[0], &durable[1], known ? allowed : NULL, false,
                 "cut after a flush");
    check_files (run, &all[0], &all[1], known ? allowed : NULL, false,
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
    fail (run, "after a cut the image cannot be opened");
  else {
    if (image_read (image, disk, run->race->spec->size, 0) < 0)
      fail (run, "after a cut the disk cannot be read");
    else if (allowed)
      compare (run, allowed, disk, 0, run->race->spec->size,
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
    const size_t event = flushed_event (run, cut);

    v->cut = cut;
    v->known = run->initial_durable || event;
    allow (run, ended_must, event, cut, v->allowed);
  }
  check_files (run, &state[0], &state[1], v->known ? v->allowed : NULL, false,
               "cut");
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

/* The power goes after each operation. */
static void
check_cuts (struct run *run, size_t first)
{
  struct cut_view view = { .run = run, .cut = SIZE_MAX };
  struct race_cuts cuts = {
    .log = &run->log, .start = run->start, .first = first,
    .look = look_at_cut, .opaque = &view,
  };

  total.to_cut++;
  if (!is_new_record (run))
    return;
  race_cuts_run (&cuts);
  total.records++;
  total.cuts += cuts.cuts;
  total.cut_states += cuts.states;
}

/* --- one schedule --- */

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
check_reads (struct run *run)
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
      compare (run, allowed, d->content, d->request->offset,
               d->request->length, "a read");
  }
}

static void
check_results (struct run *run)
{
  for (unsigned n = 0; n < MAX_ALL; n++) {
    const struct done *d = &run->done[n];

    if (d->request == NULL || d->result == 0)
      continue;
    if (run->race->fault.nth == 0 || d->result != -EIO
        || d->request->kind == READ)
      fail (run, "request %u of thread %u fails: %s", n % MAX_REQUESTS,
            n / MAX_REQUESTS, strerror (-d->result));
  }
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
      fail (run, "preparing fails");
    if (race->setup[i].kind != SETTLE)
      run->initial_durable = race->setup[i].kind == FLUSH;
    free (content);
  }
  if (image_read (run->image, run->initial, spec->size, 0) < 0)
    fail (run, "preparing leads nowhere");

  add_cut (run, 0);
  add_cut (run, spec->size);
  for (unsigned t = 0; t < race->threads; t++)
    for (unsigned i = 0; i < race->n_requests[t]; i++) {
      const struct request *q = &race->request[t][i];
      struct done *d = &run->done[t * MAX_REQUESTS + i];

      d->request = q;
      d->content = make_content (q, t * MAX_REQUESTS + i);
      d->end = SIZE_MAX;
      if (q->length) {
        add_cut (run, q->offset);
        add_cut (run, q->offset + q->length);
      }
    }
}

/* Which sources may the regions be from that were read? */
static void
find_seen (struct run *run, struct done *d)
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
      if (is_from (run, 1U << s, from, n, d->content + (from - q->offset)))
        d->seen[i] |= 1U << s;
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
      find_seen (run, &run->done[n]);
  allow (run, all_must, 0, SIZE_MAX, allowed);
  if (now == NULL || image_read (run->image, now, run->race->spec->size, 0) < 0)
    fail (run, "the disk cannot be read at the end");
  else
    compare (run, allowed, now, 0, run->race->spec->size, "at the end");
  free (now);
  if (do_request (run->image, &settle_now, NULL) < 0 && !faulty)
    fail (run, "settling fails");
  image_close (run->image);
  run->image = NULL;
  if (run->failure[0])
    return;
  if (faulty)                   /* what was never stored need not be there */
    allow (run, ended_must, flushed_event (run, SIZE_MAX), SIZE_MAX,
           allowed);
  check_files (run, &run->file[MEMORY_IMAGE], &run->file[MEMORY_DATA],
               allowed, !faulty, "after settling");
}

/* Returns false, with a message in failure, if it leads to something wrong. */
static bool
run_schedule (const struct race *race, const struct schedule *schedule,
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
  total.schedules++;
  for (unsigned t = 0; t < race->threads; t++)
    total.points += result->passed[t];
  check_results (&run);
  check_reads (&run);
  settle (&run);
  if (with_flushes && run.failure[0] == '\0')
    check_flushes (&run, first);
  if (with_cuts && run.failure[0] == '\0')
    check_cuts (&run, first);

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

/* --- all schedules of a race --- */

struct search {
  const struct race *race;
  uint64_t limit;               /* schedules; 0: none */
  unsigned random;
  unsigned flushes_every;       /* nth schedule, look at each flush */
  unsigned cuts_every;          /* nth schedule, cut at every operation; 0 */
  unsigned tried;
  struct schedule schedule;     /* the last one */
  char failure[400];
};

static bool
try (struct search *s, const struct sched_segment *segment, size_t n,
     size_t *reached)
{
  struct sched_result result;
  bool ok;

  memcpy (s->schedule.segment, segment, n * sizeof *segment);
  s->schedule.segments = n;
  ok = run_schedule (s->race, &s->schedule,
                     s->tried % s->flushes_every == 0,
                     s->cuts_every && s->tried % s->cuts_every == 0, &result,
                     s->failure);
  s->tried++;
  *reached = result.reached;
  return ok;
}

/* How many points has a thread that runs first and alone? */
static unsigned
count_points (struct search *s, unsigned thread)
{
  const struct schedule schedule = { .segment = { { thread, 0 } },
                                     .segments = 1 };
  struct sched_result result;
  char failure[400];

  run_schedule (s->race, &schedule, false, false, &result, failure);
  return result.passed[thread];
}

/* Stops "first" at each of its points, and then, for each of those, "second"
 * at each of its own, with the third in between if there is one.
 */
static bool
try_pair (struct search *s, unsigned first, unsigned second, unsigned third,
          uint64_t *left, unsigned stride_k, unsigned stride_j)
{
  for (unsigned k = 0;; k += stride_k) {
    size_t reached;

    for (unsigned j = 0;; j += stride_j) {
      struct sched_segment segment[4];
      size_t n = 0;
      unsigned parks = 0;

      if (s->limit && *left == 0)
        return true;
      if (k) {
        segment[n++] = (struct sched_segment) { first, k };
        parks++;
      }
      if (j) {
        segment[n++] = (struct sched_segment) { second, j };
        parks++;
      }
      if (third < s->race->threads)
        segment[n++] = (struct sched_segment) { third, 0 };
      if (j)                    /* j 0: second to its end at once */
        segment[n++] = (struct sched_segment) { first, 0 };
      else
        segment[n++] = (struct sched_segment) { second, 0 };
      (*left)--;
      if (!try (s, segment, n, &reached))
        return false;
      if (k && reached == 0)
        return true;            /* first has no such point */
      if (reached < parks)
        break;                  /* second has not */
    }
  }
}

static bool
try_random (struct search *s, uint64_t seed)
{
  struct rng rng = { seed };
  struct sched_segment segment[SCHED_SEGMENTS];
  const unsigned longest = 2 + rng_below (&rng, 12);
  size_t reached;

  for (unsigned i = 0; i < SCHED_SEGMENTS; i++)
    segment[i] = (struct sched_segment) {
      rng_below (&rng, s->race->threads), 1 + rng_below (&rng, longest)
    };
  return try (s, segment, SCHED_SEGMENTS, &reached);
}

/* Under a limit, schedules are left out evenly. */
static bool
search_race (struct search *s)
{
  const unsigned threads = s->race->threads;
  unsigned points[SCHED_THREADS], pairs = threads * (threads - 1);

  for (unsigned t = 0; t < threads; t++)
    points[t] = count_points (s, t);
  for (unsigned a = 0; a < threads; a++)
    for (unsigned b = 0; b < threads; b++) {
      const uint64_t all = (points[a] + 1) * (uint64_t) (points[b] + 1);
      uint64_t left = s->limit ? s->limit / pairs + 1 : 0;
      unsigned stride_k = 1, stride_j = 1;

      if (a == b)
        continue;
      while (s->limit && all / (stride_k * stride_j) > left)
        if (points[a] / stride_k > points[b] / stride_j)
          stride_k++;
        else
          stride_j++;
      if (!try_pair (s, a, b, threads == 3 ? 3 - a - b : SCHED_THREADS, &left,
                     stride_k, stride_j))
        return false;
    }
  for (unsigned i = 0; i < s->random; i++)
    if (!try_random (s, 1000 * s->race->variant + i))
      return false;
  return true;
}

static void
print_failure (const struct search *s)
{
  size_t n = s->schedule.segments;

  printf ("%s %s %u", s->race->name, s->race->spec->name, s->race->variant);
  for (size_t i = 0; i < n; i++)
    printf (" %u:%u", s->schedule.segment[i].thread,
            s->schedule.segment[i].points);
  printf (": %s\n", s->failure);
}

/* --- mutants --- */

/* Rules as broken, and a race that is tried first. */
static const struct {
  const char *name, *first, *rule;
} mutants[] = {
  { "no_range_lock", "write-write",
    "two requests allocate in one cluster at the same time" },
  { "look_first", "write-write",
    "a write looks at a cluster's state and then waits for others" },
  { "zero_looks_first", "write-zero",
    "zeroing looks at a cluster's state and then waits for others" },
  { "no_grace", "read-reallocate",
    "what is let go of is used again while requests still look at it" },
  { "reuse_before_durable", "trim-flush-allocate",
    "what is let go of is used again before that is durable" },
  { "publish_first", "two-cows-flush",
    "entries are published before the data is written" },
  { "collect_late", "flush-flush",
    "a commit collects after its first flush" },
  { "read_uncounted", "read-reallocate",
    "reads do not count as in flight" },
  { "join_commit", "flush-flush",
    "a flush is content with a commit that has begun before it" },
  { "two_makers", "growth-write",
    "refcount blocks are made while others are being made" },
  { "load_twice", "eviction-write",
    "a table is read without a look whether another thread has" },
  { "evict_busy", "eviction-write",
    "a table that is being written is evicted" },
  { "table_twice", "first-writes",
    "a new L2 table is made without a look whether another plan has" },
  { "start_twice", "first-writes",
    "a session is prepared for without a look whether another has" },
  { "l1_after_l2", "commit-first-write",
    "a commit copies L2 tables and, in a later critical section, L1 entries" },
  { "bitmap_look_first", "settle-flush",
    "a change looks whether bitmaps are open and then counts as in flight" },
  { "bitmap_no_grace", "settle-flush",
    "bitmaps are stored while changes are in flight" },
  { "flip_early", "settle-flush",
    "a set in which requests are in flight becomes the current one again" },
  { "keep_raced_table", "first-writes",
    "a table that another plan was faster to make is kept" },
  { "hole_found_late", "hole-zero-write",
    "what was found to be a hole counts as one whatever happened meanwhile" },
  { "hole_under_write", "write-hole-write",
    "a cluster counts as a hole although a late write in place has ended" },
  { "late_write", "write-zero-write",
    "the next to write to a zeroed cluster does not wait for writes in place" },
  { "discard_late", "trim-flush-allocate",
    "space is given back after it is free to be used again" },
  { "no_data_flush", "flush-flush",
    "a commit does not flush guest data before pointers" },
  { "no_image_flush", "flush-flush",
    "a commit does not flush counts and tables before pointers" },
  { "counts_with_pointers", "flush-flush",
    "counts are written with the pointers" },
};

static bool
kill_mutant (const char *first, bool others, uint64_t limit)
{
  struct race_cursor at = { 0 };
  struct race race;

  while (race_next (&at, &race)) {
    struct search s = {
      .race = &race, .limit = limit, .random = 2 * RANDOM,
      .flushes_every = 1, .cuts_every = 3
    };

    if ((strcmp (race.name, first) == 0) == others)
      continue;
    if (!search_race (&s)) {
      printf ("caught: %-20s by ", qcow2_mutant);
      print_failure (&s);
      return true;
    }
  }
  return false;
}

/* Each in a process of its own: a broken engine may do anything. */
static unsigned
try_mutants (const char *only)
{
  unsigned survived = 0, tried = 0;

  for (size_t i = 0; i < sizeof mutants / sizeof mutants[0]; i++) {
    pid_t pid;
    int status;

    if (only ? strcmp (only, mutants[i].name) != 0
             : i % (3 / crash_share (3)) != 0)
      continue;
    tried++;
    sched_end ();
    fflush (stdout);
    pid = fork ();
    if (pid == 0) {
      bool killed;

      qcow2_mutant = mutants[i].name;
      /* Where a few schedules of many show it, those that are left out may
       * be these.
       */
      killed = kill_mutant (mutants[i].first, false, 10 * LIMIT)
        || kill_mutant (mutants[i].first, true, 10 * LIMIT)
        || kill_mutant (mutants[i].first, false, 0);
      fflush (stdout);
      _exit (killed ? 0 : 1);
    }
    if (pid < 0 || waitpid (pid, &status, 0) != pid)
      abort ();
    if (WIFSIGNALED (status))
      printf ("caught: %-20s by a crash: %s\n", mutants[i].name,
              strsignal (WTERMSIG (status)));
    else if (WEXITSTATUS (status) != 0) {
      survived++;
      printf ("SURVIVED: %s: %s\n", mutants[i].name, mutants[i].rule);
    }
  }
  printf ("%u mutants were caught, %u survived\n", tried - survived,
          survived);
  return survived + (tried == 0);
}

/* --- */

static bool
again (int argc, char *argv[])
{
  struct race race = {
    .spec = crash_spec (argv[2]), .variant = strtoul (argv[3], NULL, 0)
  };
  struct search s = { .race = &race, .flushes_every = 1, .cuts_every = 1 };
  struct sched_segment segment[SCHED_SEGMENTS];
  size_t reached;

  if (!race_make (&race, argv[1]))
    return false;
  for (int i = 4; i < argc; i++)
    if (sscanf (argv[i], "%u:%u", &segment[i - 4].thread,
                &segment[i - 4].points) != 2)
      return false;
  sched_verbose = true;
  if (try (&s, segment, argc - 4, &reached))
    return true;
  print_failure (&s);
  return false;
}

int
main (int argc, char *argv[])
{
  const struct timespec none = { 0 };
  struct timespec begin = none, end = none;
  const bool cut = argc > 1 && strcmp (argv[1], "cut") == 0;
  const bool all = cut || (argc > 1 && strcmp (argv[1], "all") == 0);
  const char *only = argc > 1 + all ? argv[1 + all] : NULL;
  struct race_cursor at = { 0 };
  struct race race;
  unsigned failures = 0, n = 0;

  crash_quiet ();
  setvbuf (stdout, NULL, _IOLBF, 0);
  qcow2_mutant = getenv ("QCOW2EXT_TEST_MUTANT");
  if (argc > 4)
    return again (argc, argv) ? EXIT_SUCCESS : EXIT_FAILURE;
  if (argc > 1 && strcmp (argv[1], "mutants") == 0)
    return try_mutants (argv[2]) ? EXIT_FAILURE : EXIT_SUCCESS;

  clock_gettime (CLOCK_MONOTONIC, &begin);
  while (race_next (&at, &race)) {
    struct search s = { .race = &race };

    if (only && strcmp (only, race.name) != 0)
      continue;
    n++;
    s.limit = all ? 0 : crash_share (LIMIT);
    s.random = all ? 50 * RANDOM : crash_share (RANDOM);
    s.flushes_every = cut ? UINT_MAX : all ? 1 : 3;
    s.cuts_every = cut ? 1 : all ? 0 : CUTS_EVERY;
    memset (records, 0, sizeof records);
    if (!search_race (&s)) {
      failures++;
      printf ("FAIL: ");
      print_failure (&s);
      if (strcmp (s.failure, "a deadlock") == 0)
        return EXIT_FAILURE;    /* with threads that hang */
    }
  }
  clock_gettime (CLOCK_MONOTONIC, &end);
  printf ("%u races, %" PRIu64 " schedules of %" PRIu64 " points, %" PRIu64
          " states of files, %u failures, %ld seconds\n", n, total.schedules,
          total.points, total.states, failures,
          (long) (end.tv_sec - begin.tv_sec));
  printf ("the power was cut in %" PRIu64 " schedules, which are %" PRIu64
          " records, at %" PRIu64 " places: %" PRIu64 " states\n",
          total.to_cut, total.records, total.cuts, total.cut_states);
  if (argc == 1 && failures == 0)
    failures += try_mutants (NULL);
  sched_end ();
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
