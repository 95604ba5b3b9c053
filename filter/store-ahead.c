/* qcow2ext: a store in front of one that is far away, which reads ahead.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Where requests read in order (streams.h) and each takes long, threads of the
 * store read what comes next, in chunks:
 *
 *   QUEUED --a thread, or the request that wants it--> LOADING
 *   LOADING --read--> READY --all taken, too old, or memory is short--> gone
 *           --failed, or changed meanwhile--> gone
 *
 * A request copies from the chunks that cover its range, waits for those of them
 * that are LOADING, and reads the rest itself.  The range of a chunk that failed
 * is read again by the request that wants it, which reports the error.
 *
 * Invariants, beside those of the list (chunks.h):
 * - A chunk in the list holds what the store holds: a change takes the chunks of
 *   its range out of the list before it begins, and while a change is under way
 *   no chunk comes in.
 * - A chunk out of the list is freed by its last user.  A request that found it
 *   before a change began may get the data from before that change.
 *
 * A chunk that takes too long halves how far is read ahead: on a narrow path it
 * delays other requests, and the last client's leaving.  Any other chunk doubles
 * it.
 *
 * Another program may change a file that is far away.  Nothing is promised for
 * that case, but a chunk is not kept for longer than seconds.
 *
 * Threads are started for the first chunk, long after the server has forked, with
 * all signals blocked; they end before inner is closed.  One lock guards
 * everything here, and is not held during I/O.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "chunks.h"
#include "store-ahead.h"
#include "streams.h"

#define THREADS_MAX 8
#define REQUESTS 4              /* at least, for a window */
#define MOST_PART (UINT64_C (1) << 20)

/* A serial store does one request after another: a second thread keeps it from
 * being idle, a third one gains nothing, and large requests gain most.
 */
#define THREADS_SERIAL 2
#define MOST_PART_SERIAL (UINT64_C (4) << 20)

/* From how long a request takes it pays to read ahead, and how long a chunk may
 * take, in nanoseconds.
 */
#define SLOW UINT64_C (1000000)
#define TOO_LONG UINT64_C (1000000000)

/* How far is read ahead at least, bytes. */
#define LEAST_REACH ((size_t) 512 << 10)

/* How far from the end of the last request the next one may be. */
#define SLACK (UINT64_C (64) << 10)

struct store_ahead {
  struct store store;           /* its name is that of inner */
  struct store *inner;
  unsigned threads_max;
  unsigned requests;            /* for a window, at least */
  uint64_t most_part;           /* of a chunk, bytes */

  pthread_mutex_t lock;         /* guards the rest */
  pthread_cond_t work;          /* there is a QUEUED chunk, or closing is set */
  pthread_cond_t loaded;        /* a chunk is no longer LOADING */
  struct streams streams;
  struct chunk_list chunks;
  size_t reach;                 /* how far to read ahead, of all streams
                                   together, bytes */
  size_t reading;               /* bytes that requests read themselves */
  unsigned changes;             /* under way */
  bool slow;                    /* the last request that read itself was */
  bool closing;
  unsigned threads, idle;
  pthread_t thread[THREADS_MAX];
};

static uint64_t
now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * UINT64_C (1000000000) + ts.tv_nsec;
}

/* --- loading; all under the lock --- */

/* Windows leave room for the chunk that requests are taking from. */
static size_t
most_reach (const struct store_ahead *s)
{
  return s->chunks.memory / (s->requests + 1) * s->requests;
}

/* Learns from how long a chunk took. */
static void
adapt (struct store_ahead *s, uint64_t took)
{
  s->reach = took > TOO_LONG ? max64 (s->reach / 2, LEAST_REACH)
                             : 2 * s->reach;
  s->reach = min64 (s->reach, most_reach (s));
}

/* Loads a chunk that is QUEUED; the lock is released meanwhile. */
static void
load (struct store_ahead *s, struct chunk *c)
{
  const size_t count = c->end - c->start;
  const uint64_t begun = now ();
  int r = -ENOMEM;

  c->state = LOADING;
  c->users++;
  pthread_mutex_unlock (&s->lock);
  c->data = malloc (count);
  if (c->data)
    r = store_pread (s->inner, c->data, count, c->start);
  pthread_mutex_lock (&s->lock);
  adapt (s, now () - begun);
  c->state = r < 0 ? FAILED : READY;
  if (r < 0 && c->listed)
    chunks_unlist (&s->chunks, c);
  pthread_cond_broadcast (&s->loaded);
  chunk_release (c);
}

/* --- threads --- */

static void *
ahead_thread (void *opaque)
{
  struct store_ahead *s = opaque;

  LOCK_FOR_SCOPE (&s->lock);
  while (!s->closing) {
    struct chunk *c = chunks_find_queued (&s->chunks);

    if (c)
      load (s, c);
    else {
      s->idle++;
      pthread_cond_wait (&s->work, &s->lock);
      s->idle--;
    }
  }
  return NULL;
}

/* Sees to it that somebody loads what has been ordered.  If no thread can be
 * started, the request that wants it does.
 */
static void
call_threads (struct store_ahead *s, unsigned chunks)
{
  sigset_t all, old;

  pthread_cond_broadcast (&s->work);
  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  for (unsigned n = s->idle; n < chunks && s->threads < s->threads_max; n++) {
    if (pthread_create (&s->thread[s->threads], NULL, ahead_thread, s) != 0)
      break;
    s->threads++;
  }
  pthread_sigmask (SIG_SETMASK, &old, NULL);
}

/* --- requests --- */

/* Orders what comes after a request that is one of many in order.  Under the
 * lock.
 */
static void
read_ahead (struct store_ahead *s, uint64_t offset, uint64_t count)
{
  const uint64_t time = now ();
  uint64_t start, end, part, size;
  unsigned chunks = 0;

  chunks_drop_old (&s->chunks, time);
  streams_note (&s->streams, offset, count, SLACK + s->reading,
                s->reach, s->requests, s->most_part, &start, &end, &part);
  if (start == end || !s->slow || s->changes
      || store_get_size (s->inner, &size) < 0)
    return;
  end = min64 (end, size);
  for (; start < end; start += part) {
    if (!chunks_order (&s->chunks, start, min64 (start + part, end), time))
      break;
    chunks++;
  }
  if (chunks)
    call_threads (s, chunks);
}

/* Copies from the chunk that holds offset, as much as it has.  Returns how
 * much, 0 if it turned out to be of no use.  Under the lock, which is released
 * meanwhile.
 */
static size_t
take (struct store_ahead *s, struct chunk *c, void *buf, size_t count,
      uint64_t offset)
{
  size_t n = 0;

  c->users++;
  if (c->state == QUEUED)
    load (s, c);
  while (c->state == LOADING)
    pthread_cond_wait (&s->loaded, &s->lock);
  if (c->state == READY) {
    n = min64 (count, c->end - offset);
    c->taken += n;
    pthread_mutex_unlock (&s->lock);
    memcpy (buf, c->data + (offset - c->start), n);
    pthread_mutex_lock (&s->lock);
    if (c->taken >= c->end - c->start && c->listed)
      chunks_unlist (&s->chunks, c);
  }
  chunk_release (c);
  return n;
}

/* Reads what no chunk has.  Under the lock, which is released meanwhile. */
static int
read_itself (struct store_ahead *s, void *buf, size_t count, uint64_t offset)
{
  uint64_t took;
  int r;

  s->reading += count;
  pthread_mutex_unlock (&s->lock);
  took = now ();
  r = store_pread (s->inner, buf, count, offset);
  took = now () - took;
  pthread_mutex_lock (&s->lock);
  s->reading -= count;
  s->slow = took >= SLOW;
  return r;
}

static int
ahead_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  struct store_ahead *s = (struct store_ahead *) store;
  uint8_t *p = buf;
  int r;

  LOCK_FOR_SCOPE (&s->lock);
  read_ahead (s, offset, count);
  while (count > 0) {
    size_t n = count;
    struct chunk *c = chunks_find (&s->chunks, offset, &n);

    if (c)
      n = take (s, c, p, count, offset);
    else if ((r = read_itself (s, p, n, offset)) < 0)
      return r;
    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

/* Around a change of the inner store. */
static void
change_begin (struct store_ahead *s, uint64_t count, uint64_t offset)
{
  LOCK_FOR_SCOPE (&s->lock);
  s->changes++;
  chunks_drop_range (&s->chunks, offset, offset + count);
}

static int
change_end (struct store_ahead *s, int result)
{
  LOCK_FOR_SCOPE (&s->lock);
  s->changes--;
  return result;
}

static int
ahead_pwrite (struct store *store, const void *buf, size_t count,
              uint64_t offset)
{
  struct store_ahead *s = (struct store_ahead *) store;

  change_begin (s, count, offset);
  return change_end (s, store_pwrite (s->inner, buf, count, offset));
}

static int
ahead_zero (struct store *store, uint64_t count, uint64_t offset,
            unsigned flags)
{
  struct store_ahead *s = (struct store_ahead *) store;

  change_begin (s, count, offset);
  return change_end (s, store_zero (s->inner, count, offset, flags));
}

static int
ahead_discard (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_ahead *s = (struct store_ahead *) store;

  change_begin (s, count, offset);
  return change_end (s, store_discard (s->inner, count, offset));
}

static int
ahead_resize (struct store *store, uint64_t size)
{
  struct store_ahead *s = (struct store_ahead *) store;

  change_begin (s, UINT64_MAX - size, size);
  return change_end (s, store_resize (s->inner, size));
}

static int
ahead_get_size (struct store *s, uint64_t *size)
{
  return store_get_size (((struct store_ahead *) s)->inner, size);
}

static int
ahead_refresh_size (struct store *s, uint64_t *size)
{
  return store_refresh_size (((struct store_ahead *) s)->inner, size);
}

static int
ahead_extent (struct store *s, uint64_t offset, uint64_t *end, unsigned *type)
{
  return store_extent (((struct store_ahead *) s)->inner, offset, end, type);
}

static int
ahead_cache (struct store *s, uint64_t count, uint64_t offset)
{
  return store_cache (((struct store_ahead *) s)->inner, count, offset);
}

static int
ahead_flush (struct store *s)
{
  return store_flush (((struct store_ahead *) s)->inner);
}

static void
ahead_close (struct store *store)
{
  struct store_ahead *s = (struct store_ahead *) store;

  {
    LOCK_FOR_SCOPE (&s->lock);
    s->closing = true;
    pthread_cond_broadcast (&s->work);
  }
  for (unsigned i = 0; i < s->threads; i++)
    pthread_join (s->thread[i], NULL);
  chunks_drop_range (&s->chunks, 0, UINT64_MAX);
  pthread_cond_destroy (&s->work);
  pthread_cond_destroy (&s->loaded);
  pthread_mutex_destroy (&s->lock);
  store_close (s->inner);
  free (s);
}

static const struct store_ops ahead_ops = {
  .pread = ahead_pread,
  .get_size = ahead_get_size,
  .refresh_size = ahead_refresh_size,
  .extent = ahead_extent,
  .cache = ahead_cache,
  .pwrite = ahead_pwrite,
  .zero = ahead_zero,
  .discard = ahead_discard,
  .flush = ahead_flush,
  .resize = ahead_resize,
  .close = ahead_close,
};

struct store *
store_ahead_new (struct store *inner, size_t memory, bool serial)
{
  struct store_ahead *s;

  if (memory < LEAST_REACH)
    return inner;
  s = calloc (1, sizeof *s);
  if (s == NULL) {
    store_close (inner);
    errno = ENOMEM;
    return NULL;
  }
  s->store = *inner;            /* all of it is constant */
  s->store.ops = &ahead_ops;
  s->inner = inner;
  chunks_init (&s->chunks, memory);
  s->threads_max = serial ? THREADS_SERIAL : THREADS_MAX;
  s->requests = serial ? THREADS_SERIAL : REQUESTS;
  s->most_part = serial ? MOST_PART_SERIAL : MOST_PART;
  s->reach = most_reach (s);
  pthread_mutex_init (&s->lock, NULL);
  pthread_cond_init (&s->work, NULL);
  pthread_cond_init (&s->loaded, NULL);
  return &s->store;
}
