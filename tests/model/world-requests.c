/* qcow2ext: requests to a world, one at a time or several.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "need.h"
#include "world.h"

/* How long somebody who perhaps waits for us is waited for. */
#define IMPATIENCE_NS 10000000

uint64_t crash_hang_ns = UINT64_C (120) * 1000000000;

static bool
join_other (struct world *w, uint64_t ns)
{
  struct timespec until;

  clock_gettime (CLOCK_REALTIME, &until);
  ns += until.tv_nsec;
  until.tv_sec += ns / 1000000000;
  until.tv_nsec = ns % 1000000000;
  if (pthread_timedjoin_np (w->other_thread, NULL, &until) != 0)
    return false;
  w->other_runs = false;
  return true;
}

/* What a request makes of its sectors: the bytes of a write, or zeros. */
static uint8_t *
new_content (struct world *w, const struct request *q)
{
  uint8_t *content, *whole;
  uint64_t first = q->offset / MEMORY_SECTOR;
  uint64_t end = (q->offset + q->length + MEMORY_SECTOR - 1) / MEMORY_SECTOR;
  uint32_t number;

  content = need (calloc (1, q->length + 1));
  if (q->kind != WRITE)
    return content;
  pthread_mutex_lock (&w->lock);
  number = w->next_number++;
  pthread_mutex_unlock (&w->lock);
  if ((w->spec->write.compress || w->spec->write.detect_zeroes)
      && number % 5 == 0)
    return content;             /* zeros, for them to be detected */
  whole = need (malloc ((end - first) * MEMORY_SECTOR));
  for (uint64_t i = first; i < end; i++)
    make_pattern (whole + (i - first) * MEMORY_SECTOR, number, i);
  memcpy (content, whole + q->offset % MEMORY_SECTOR, q->length);
  free (whole);
  return content;
}

/* Tells the model that this is about to happen, or that (done) it is what is
 * there now.
 */
static void
tell_model (struct world *w, const struct request *q, const uint8_t *content,
            bool done, size_t issued)
{
  const uint64_t end = q->offset + q->length;
  size_t event;

  pthread_mutex_lock (&w->lock);
  event = ++w->events;
  for (uint64_t pos = q->offset, next; pos < end; pos = next) {
    const uint64_t s = pos / MEMORY_SECTOR;
    struct history *h = &w->sector[s];
    uint8_t bytes[MEMORY_SECTOR] = { 0 };

    next = (s + 1) * MEMORY_SECTOR;
    if (next > end)
      next = end;
    if (history_latest (h)->bytes)
      memcpy (bytes, history_latest (h)->bytes, MEMORY_SECTOR);
    memcpy (bytes + pos % MEMORY_SECTOR, content + (pos - q->offset),
            next - pos);
    if (next - pos < MEMORY_SECTOR)
      h->partial = true;
    if (done && version_is (history_latest (h), bytes))
      history_latest (h)->done = event;
    else
      history_push (h, issued, done ? event : SIZE_MAX, bytes);
  }
  pthread_mutex_unlock (&w->lock);
}

/* What came of it, if that is not certain: the model learns it by looking.
 * Returns false if it is impossible.
 */
static bool
look (struct world *w, const struct request *q, const uint8_t *old,
      const uint8_t *content, size_t issued)
{
  uint8_t *now = need (malloc (q->length + 1));
  bool ok = true;
  int r;

  r = image_read (w->image, now, q->length, q->offset);
  if (r < 0) {
    world_fail (w, "what request %d left behind cannot be read: %s", q->kind,
                strerror (-r));
    free (now);
    return false;
  }
  for (uint64_t i = 0; i < q->length && ok; i++)
    ok = now[i] == old[i] || now[i] == content[i];
  if (ok)
    tell_model (w, q, now, true, issued);
  else
    world_fail (w, "request %d at %" PRIu64 "+%" PRIu64 " left something "
                "else behind", q->kind, q->offset, q->length);
  free (now);
  return ok;
}

/* Likewise, if others wrote to the same sectors at the same time. */
static void
look_after_race (struct world *w, const struct request *q, size_t event,
                 size_t issued)
{
  uint8_t *now = need (malloc (q->length + 1));

  if (image_read (w->image, now, q->length, q->offset) < 0)
    world_fail (w, "what others wrote to as well cannot be read");
  else {
    for (uint64_t i = 0; i < q->length; i += MEMORY_SECTOR) {
      const uint64_t s = (q->offset + i) / MEMORY_SECTOR;
      char buf[128];

      if (!history_allows (&w->sector[s], history_at (&w->sector[s], event),
                           SIZE_MAX, now + i))
        world_fail (w, "after a race sector %" PRIu64 " is %s", s,
                    history_describe (&w->sector[s], now + i, buf));
    }
    tell_model (w, q, now, true, issued);
  }
  free (now);
}

/* Reading must show what was there before or what came in the meantime. */
static int
do_read (struct world *w, const struct request *q)
{
  const uint64_t first = q->offset / MEMORY_SECTOR;
  const uint64_t count = q->length / MEMORY_SECTOR;
  size_t *oldest = need (calloc (count + 1, sizeof *oldest));
  uint8_t *buf = need (malloc (q->length + 1));
  int r;

  pthread_mutex_lock (&w->lock);
  for (uint64_t i = 0; i < count; i++)
    oldest[i] = history_at (&w->sector[first + i], SIZE_MAX - 1);
  pthread_mutex_unlock (&w->lock);
  memory_in_engine = true;
  r = image_read (w->image, buf, q->length, q->offset);
  memory_in_engine = false;
  pthread_mutex_lock (&w->lock);
  for (uint64_t i = 0; i < count && r == 0; i++) {
    char text[128];

    if (!history_allows (&w->sector[first + i], oldest[i], SIZE_MAX,
                         buf + i * MEMORY_SECTOR))
      world_fail (w, "sector %" PRIu64 " reads as %s", first + i,
                  history_describe (&w->sector[first + i],
                                    buf + i * MEMORY_SECTOR, text));
  }
  pthread_mutex_unlock (&w->lock);
  free (oldest);
  free (buf);
  return r;
}

static int
do_flush (struct world *w, const struct request *q)
{
  size_t begin;
  int r;

  pthread_mutex_lock (&w->lock);
  begin = ++w->events;
  pthread_mutex_unlock (&w->lock);
  memory_in_engine = true;
  r = q->kind == FLUSH ? image_flush (w->image)
                       : image_settle (w->image, q->flags & SETTLE_IDLE);
  memory_in_engine = false;
  if (r == 0 && !(q->kind == SETTLE && q->flags & SETTLE_IDLE)) {
    pthread_mutex_lock (&w->lock);
    w->flushed = need (realloc (w->flushed,
                                (w->flushes + 1) * sizeof *w->flushed));
    w->flushed[w->flushes++] = (struct flushed) {
      .begin = begin, .end = memory_log_count (&w->log)
    };
    pthread_mutex_unlock (&w->lock);
  }
  if (r == 0 && q->kind == SETTLE && q->flags & SETTLE_REOPEN) {
    image_close (w->image);
    w->image = NULL;
    w->size_at_open = w->live[MEMORY_IMAGE].size;
    r = files_open (&w->files, true, 0, &w->image);
  }
  return r;
}

static int
do_change (struct world *w, const struct request *q)
{
  uint8_t *content = new_content (w, q);
  uint8_t *old = need (malloc (q->length + 1));
  const size_t issued = memory_log_count (&w->log);
  size_t event;
  int r;

  pthread_mutex_lock (&w->lock);
  event = w->events;
  for (uint64_t i = 0; i < q->length; i++) {
    const uint64_t pos = q->offset + i;
    const uint8_t *bytes =
      history_latest (&w->sector[pos / MEMORY_SECTOR])->bytes;

    old[i] = bytes ? bytes[pos % MEMORY_SECTOR] : 0;
  }
  pthread_mutex_unlock (&w->lock);

  tell_model (w, q, content, false, issued);
  memory_in_engine = true;
  switch (q->kind) {
  case WRITE:
    r = image_write (w->image, content, q->length, q->offset);
    break;
  case ZERO:
    r = image_zero (w->image, q->length, q->offset, q->flags);
    break;
  default:
    r = image_trim (w->image, q->length, q->offset);
    break;
  }
  memory_in_engine = false;
  if (pthread_equal (pthread_self (), w->paused_thread))
    w->pausing = NULL;
  if (r == 0 && q == &w->step->request && w->step->races) {
    if (w->other_runs && !join_other (w, crash_hang_ns))
      world_fail (w, "a request hangs");
    look_after_race (w, q, event, issued);
  }
  else if (r == -ENOTSUP && q->kind == ZERO && (q->flags & IMAGE_ZERO_FAST)) {
    /* With nothing changed, unless others changed what was found. */
    if (look (w, q, old, w->step->pause.nth ? content : old, issued))
      r = 0;
  }
  else if (r == 0 && q->kind != TRIM)
    tell_model (w, q, content, true, issued);
  else if (w->step->races)
    look_after_race (w, q, event, issued);
  else
    look (w, q, old, content, issued);
  free (content);
  free (old);
  return r;
}

int
world_request (struct world *w, const struct request *q)
{
  int r;

  switch (q->kind) {
  case READ:
    r = do_read (w, q);
    break;
  case FLUSH:
  case SETTLE:
    r = do_flush (w, q);
    break;
  default:
    r = do_change (w, q);
    break;
  }
  if (r < 0) {
    pthread_mutex_lock (&w->lock);
    if (w->first_error == 0)
      w->first_error = r;
    w->failed_requests++;
    pthread_mutex_unlock (&w->lock);
    if (!w->expect_errors)
      world_fail (w, "request %d at %" PRIu64 "+%" PRIu64 " failed: %s",
                  q->kind, q->offset, q->length, strerror (-r));
  }
  return r;
}

/* --- pauses --- */

struct other {
  struct world *w;
  const struct request *request;
  pthread_t thread;
};

static void *
do_other (void *opaque)
{
  struct other *other = opaque;

  world_request (other->w, other->request);
  return NULL;
}

static void *
do_others (void *opaque)
{
  struct world *w = opaque;
  const struct step *step = w->others;
  struct other other[MAX_DURING];

  for (unsigned i = 0; i < step->n_during; i++) {
    other[i] = (struct other) { .w = w, .request = &step->during[i] };
    if (!step->pause.together)
      do_other (&other[i]);
    else if (pthread_create (&other[i].thread, NULL, do_other, &other[i]) != 0)
      abort ();
  }
  for (unsigned i = 0; step->pause.together && i < step->n_during; i++)
    pthread_join (other[i].thread, NULL);
  return NULL;
}

static void
hook (void *opaque, const struct memory_op *op, bool before)
{
  struct world *w = opaque;
  const struct step *step;

  if (!pthread_equal (pthread_self (), w->paused_thread))
    return;
  step = w->pausing;
  if (step == NULL || w->pause_left == 0
      || before == step->pause.after
      || (step->pause.kind < 0 ? op->kind == MEMORY_READ
                               : op->kind != (unsigned) step->pause.kind)
      || (step->pause.file >= 0 && op->file != (unsigned) step->pause.file)
      || --w->pause_left > 0)
    return;
  w->others = step;
  w->pauses_met++;
  if (pthread_create (&w->other_thread, NULL, do_others, w) != 0)
    abort ();
  w->other_runs = true;
  if (!join_other (w, step->pause.patient
                      ? crash_hang_ns : IMPATIENCE_NS)
      && step->pause.patient)
    world_fail (w, "a request waits for one that it has nothing to do with");
}

void
world_step (struct world *w, const struct step *step)
{
  static const struct step none;

  w->log.hook = NULL;
  w->step = step;
  w->pausing = &none;
  if (step->pause.nth) {
    w->pausing = step;
    w->pause_begin = memory_log_count (&w->log);
    w->pause_left = step->pause.nth;
    w->paused_thread = pthread_self ();
    w->log.opaque = w;
    w->log.hook = hook;
  }
  world_request (w, &step->request);
  if (w->other_runs && !join_other (w, crash_hang_ns)) {
    fprintf (stderr, "%s: a request hangs\n", w->spec->name);
    abort ();
  }
  w->log.hook = NULL;
}
