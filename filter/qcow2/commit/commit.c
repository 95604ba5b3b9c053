/* qcow2ext: the order in which metadata reaches the disk.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "commit/commit.h"

void
commit_init (struct commit *c, struct health *health, struct store *file,
             struct store *data, struct report_limit *limit)
{
  *c = (struct commit) {
    .health = health, .file = file, .data = data, .limit = limit,
  };
  pthread_mutex_init (&c->lock, NULL);
  pthread_cond_init (&c->finished, NULL);
}

void
commit_destroy (struct commit *c)
{
  pthread_cond_destroy (&c->finished);
  pthread_mutex_destroy (&c->lock);
}

void
commit_register (struct commit *c, const struct commit_source *source)
{
  if (c->sources == COMMIT_SOURCES)
    abort ();                   /* a mistake in the program */
  c->source[c->sources++] = *source;
}

bool
commit_is_dirty (struct commit *c)
{
  for (unsigned i = 0; i < c->sources; i++)
    if (c->source[i].is_dirty (c->source[i].self))
      return true;
  return false;
}

static void
tell (struct commit *c, unsigned n, enum commit_progress progress)
{
  while (n-- > 0)
    c->source[n].done (c->source[n].self, progress);
}

static int
collect (struct commit *c, struct batch *b, bool *more)
{
  *more = false;
  for (unsigned i = 0; i < c->sources; i++) {
    const int r = c->source[i].collect (c->source[i].self, b);

    if (r < 0) {
      tell (c, i, COMMIT_NOTHING);
      return r;
    }
    *more |= r == COMMIT_MORE;
  }
  return 0;
}

static int
write_new (struct commit *c, const struct batch *b)
{
  int r;

  if ((r = batch_write (b, BATCH_NEW, c->file, c->limit)) < 0)
    return r;
  if (c->data
      && (r = health_flush (c->health, c->data, FLUSH_NEW)) < 0)
    return r;
  if (c->data == NULL || !batch_is_empty (b, BATCH_NEW))
    return health_flush (c->health, c->file, FLUSH_NEW);
  return 0;
}

static int
write_pointers (struct commit *c, const struct batch *b)
{
  int r;

  if (!batch_is_empty (b, BATCH_POINTERS)
      && ((r = batch_write (b, BATCH_POINTERS, c->file, c->limit)) < 0
          || (r = health_flush (c->health, c->file, FLUSH_POINTERS)) < 0))
    return r;
  return 0;
}

static int
run_round (struct commit *c, bool *more)
{
  enum commit_progress progress = COMMIT_NOTHING;
  struct batch b;
  int r;

  if (!health_ok (c->health))
    return -EIO;
  batch_init (&b);
  r = collect (c, &b, more);
  if (r == 0) {
    if ((r = write_new (c, &b)) == 0) {
      progress = COMMIT_NEW;
      if ((r = write_pointers (c, &b)) == 0)
        progress = COMMIT_ALL;
    }
    tell (c, c->sources, progress);
  }
  batch_free (&b);
  return r;
}

static int
run (struct commit *c)
{
  bool more;
  int r;

  do
    r = run_round (c, &more);
  while (r == 0 && more);
  return r;
}

int
commit_run (struct commit *c)
{
  uint64_t wanted;

  LOCK_FOR_SCOPE (&c->lock);
  wanted = c->nr_started + 1;
  while (c->nr_done < wanted) {
    int r;

    if (c->running) {
      pthread_cond_wait (&c->finished, &c->lock);
      continue;
    }
    c->running = true;
    c->nr_started++;
    pthread_mutex_unlock (&c->lock);
    r = run (c);
    pthread_mutex_lock (&c->lock);
    c->running = false;
    c->nr_done = c->nr_started;
    c->result = r;
    pthread_cond_broadcast (&c->finished);
  }
  return c->result;
}
