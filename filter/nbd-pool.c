/* qcow2ext: connections to an NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each connection is a link with a thread of its own.  The thread connects,
 * waits for answers, and, once the connection is lost, connects again.
 * Requests are sent by those who make them, who then wait for the answer.
 *
 *   down --wanted--> connecting --agreed on everything--> up
 *     ^                  |                                 |
 *     +----- failed -----+---- lost, dropped, closing -----+
 *
 * A link is wanted if none is up and somebody waits for one, or if another one
 * has come up since it last tried: so all of them come back with the first.
 * There are several only if the server says that this is safe.
 *
 * A request ends when libnbd frees its callback, which it does in every case:
 * answered, connection lost, handle closed.  Until then its buffers and the
 * struct itself belong to libnbd, so that nobody may leave before.  To give up
 * on a server that hangs is therefore to close the handle, which only the
 * link's thread does.
 *
 * When nbdkit stops, a server that does not answer for some seconds is given
 * up on for good, and all requests fail.  nbdkit_nanosleep is what tells that
 * it stops; on a thread of ours it tells that alone, and not that some client
 * has gone.
 *
 * Locks: issue (of a link) guards its handle, for as long as a request is
 * being sent; lock (of the pool) guards what is wanted.  Neither is taken with
 * the other one held, and neither in a callback of libnbd, which holds a lock
 * of its own; there only that of the request is taken.
 */

#include "build-config.h"

#ifdef HAVE_LIBNBD

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "base/cleanup.h"
#include "load-libnbd.h"
#include "nbd-pool.h"
#include "base/report.h"

#define MAX_LINKS 4

/* Milliseconds. */
#define CONNECT_TIME 10000      /* for one try to connect */
#define WAIT_TIME 10000         /* of a request, for a connection */
#define QUIT_TIME 10000         /* for an answer, when nbdkit stops */
#define TICK 1000               /* between looks whether it does */
#define MAX_PAUSE 1000          /* between tries to connect */
#define STABLE_TIME 5000        /* a link that was up so long was a good one */

/* Where a server does not say its limits. */
#define MAX_REQUEST (UINT32_C (32) << 20)

struct link {
  struct nbd_pool *pool;
  pthread_t thread;
  int kick_fd;                  /* makes the thread look around */

  pthread_mutex_t issue;
  struct nbd_handle *h;         /* NULL: not up */
  unsigned generation;          /* changes with h */
  _Atomic uint64_t mark;        /* see nbd_events */
  atomic_bool up;               /* changed under issue */
  atomic_bool drop;             /* the handle is of no use any more */
  atomic_uint in_flight;

  /* Under the pool's lock. */
  unsigned tried;               /* how often a link had come up when this one
                                   last tried */
  /* The thread's own. */
  unsigned pause;               /* before the next try, milliseconds */
};

struct nbd_pool {
  char *uri;
  struct nbd_events events;
  struct report_limit limit;

  pthread_mutex_t lock;
  pthread_cond_t wake;          /* a link may be wanted, or has to end */
  pthread_cond_t changed;       /* a link is up, or could not come up */
  unsigned waiting;             /* requests that wait for a link */
  unsigned ups;                 /* how often a link has come up */
  unsigned failures;            /* how often one could not */
  bool said_lost;               /* the log says that there is no link */
  char why[256];                /* the last failure */
  bool have_facts;
  struct nbd_facts facts;       /* of the first link; then constant */

  atomic_bool closing;
  atomic_bool quitting;         /* nbdkit stops */
  atomic_bool given_up;
  _Atomic int64_t quit_time;    /* when that was seen */

  atomic_uint nr_links;
  struct link link[MAX_LINKS];
};

/* Milliseconds of CLOCK_MONOTONIC. */
static int64_t
now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * INT64_C (1000) + ts.tv_nsec / 1000000;
}

static void
wait_until (pthread_cond_t *cond, pthread_mutex_t *lock, int64_t time)
{
  const struct timespec ts = {
    .tv_sec = time / 1000, .tv_nsec = time % 1000 * 1000000,
  };

  pthread_cond_timedwait (cond, lock, &ts);
}

static void
init_cond (pthread_cond_t *cond)
{
  pthread_condattr_t attr;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (cond, &attr);
  pthread_condattr_destroy (&attr);
}

static void
kick (struct link *l)
{
  const uint64_t one = 1;

  /* It fails only if the thread has not looked after 2^64 - 2 kicks. */
  if (write (l->kick_fd, &one, sizeof one) == -1)
    return;
}

static void
look_whether_nbdkit_stops (struct nbd_pool *p)
{
  if (p->quitting || nbdkit_nanosleep (0, 1) == 0)
    return;
  p->quit_time = now ();
  p->quitting = true;
}

/* --- the handle --- */

static bool
is_alive (struct nbd_handle *h)
{
  return libnbd.aio_is_ready (h) == 1 || libnbd.aio_is_processing (h) == 1;
}

static bool
has_ended (struct nbd_handle *h)
{
  return libnbd.aio_is_dead (h) == 1 || libnbd.aio_is_closed (h) == 1;
}

/* Waits, for timeout milliseconds at most, until there is something to do on
 * the connection, and does it.  Returns 1 if the server received or sent
 * something, 0, or -1 if the connection failed.
 */
static int
handle_events (struct link *l, struct nbd_handle *h, int timeout)
{
  unsigned direction = libnbd.aio_get_direction (h);
  struct pollfd fds[] = {
    { .fd = libnbd.aio_get_fd (h) },
    { .fd = l->kick_fd, .events = POLLIN },
  };
  uint64_t kicks;

  if (direction & LIBNBD_AIO_DIRECTION_READ)
    fds[0].events |= POLLIN;
  if (direction & LIBNBD_AIO_DIRECTION_WRITE)
    fds[0].events |= POLLOUT;
  if (poll (fds, 2, timeout) == -1)
    return 0;                   /* EINTR, or no memory: the caller tries
                                   again */
  if (fds[1].revents && read (l->kick_fd, &kicks, sizeof kicks) == -1)
    return 0;

  /* Those who send may have changed it, but only by adding a direction: only
   * this thread takes a connection on that waits to receive or to send.  If a
   * sender found it broken, it is closed and has no direction at all, whatever
   * poll saw.
   */
  direction = libnbd.aio_get_direction (h);
  if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR))
      && (direction & LIBNBD_AIO_DIRECTION_READ))
    return libnbd.aio_notify_read (h) == -1 ? -1 : 1;
  if ((fds[0].revents & (POLLOUT | POLLHUP | POLLERR))
      && (direction & LIBNBD_AIO_DIRECTION_WRITE))
    return libnbd.aio_notify_write (h) == -1 ? -1 : 1;
  return 0;
}

/* A server whose machine has gone is noticed within a minute or so. */
static void
set_keepalive (int fd)
{
  static const struct { int level, option, value; } options[] = {
    { SOL_SOCKET, SO_KEEPALIVE, 1 },
    { IPPROTO_TCP, TCP_KEEPIDLE, 20 },
    { IPPROTO_TCP, TCP_KEEPINTVL, 10 },
    { IPPROTO_TCP, TCP_KEEPCNT, 4 },
    { IPPROTO_TCP, TCP_USER_TIMEOUT, 60000 },
  };

  /* It is of no use on a Unix socket, and an error there of no interest. */
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
    setsockopt (fd, options[i].level, options[i].option, &options[i].value,
                sizeof options[i].value);
}

/* Returns NULL, or what is wrong. */
static const char *
read_facts (struct nbd_handle *h, struct nbd_facts *f)
{
  const int64_t size = libnbd.get_size (h);
  const int64_t minimum = libnbd.get_block_size (h, LIBNBD_SIZE_MINIMUM);
  const int64_t maximum = libnbd.get_block_size (h, LIBNBD_SIZE_MAXIMUM);
  const int extents =
    libnbd.can_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION);

  if (size < 0 || minimum < 0 || maximum < 0)
    return "it does not say the size of the export";
  *f = (struct nbd_facts) {
    .size = size,
    .minimum = minimum ? minimum : 1,
    .maximum = maximum && maximum < MAX_REQUEST ? maximum : MAX_REQUEST,
    .readonly = libnbd.is_read_only (h) != 0,
    .multi_conn = libnbd.can_multi_conn (h) == 1,
    .can_flush = libnbd.can_flush (h) == 1,
    .can_zero = libnbd.can_zero (h) == 1,
    .can_fast_zero = libnbd.can_zero (h) == 1 && libnbd.can_fast_zero (h) == 1,
    .can_trim = libnbd.can_trim (h) == 1,
    .can_cache = libnbd.can_cache (h) == 1,
    .can_extents = extents == 1,
  };
  if ((f->minimum & (f->minimum - 1)) || f->minimum > MAX_REQUEST
      || f->maximum < f->minimum)
    return "its block sizes make no sense";
  f->maximum &= ~(f->minimum - 1);
  return NULL;
}

/* Whether what was built on the old facts still stands.  What is wrong if
 * not.
 */
static const char *
compare_facts (const struct nbd_facts *old, const struct nbd_facts *f)
{
  if (f->size < old->size)
    return "the export has become smaller";
  if (f->readonly && !old->readonly)
    return "the export has become read-only";
  if (f->minimum > old->minimum || f->maximum < old->maximum)
    return "it now demands other block sizes";
  if (f->can_flush != old->can_flush || f->can_zero < old->can_zero
      || f->can_fast_zero < old->can_fast_zero
      || f->can_cache < old->can_cache || f->can_extents < old->can_extents)
    return "it can no longer do what it could";
  return NULL;
}

/* Notes why there is no connection. */
static void
note_failure (struct nbd_pool *p, const char *why)
{
  LOCK_FOR_SCOPE (&p->lock);
  snprintf (p->why, sizeof p->why, "%s", why);
}

static const char *
error_of_libnbd (void)
{
  const char *error = libnbd.get_error ();

  return error ? error : "the connection was closed";
}

/* Connects, as far as being ready for requests.  Returns false if it does not
 * come to that, with the reason noted.
 */
static bool
negotiate (struct link *l, struct nbd_handle *h)
{
  struct nbd_pool *p = l->pool;
  const int64_t deadline = now () + CONNECT_TIME;

  if (libnbd.set_uri_allow_local_file (h, true) == -1
      || libnbd.add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1
      || libnbd.aio_connect_uri (h, p->uri) == -1) {
    note_failure (p, error_of_libnbd ());
    return false;
  }
  while (!is_alive (h)) {
    const int64_t left = deadline - now ();

    if (p->closing || p->given_up)
      return false;
    if (has_ended (h)) {
      note_failure (p, "the connection was closed");
      return false;
    }
    if (left <= 0) {
      note_failure (p, "the server does not answer");
      return false;
    }
    if (handle_events (l, h, left) == -1) {
      note_failure (p, error_of_libnbd ());
      return false;
    }
  }
  return true;
}

/* Whether the connection is one that we can use. */
static bool
accept_facts (struct nbd_pool *p, struct nbd_handle *h)
{
  struct nbd_facts facts;
  const char *why = read_facts (h, &facts);

  LOCK_FOR_SCOPE (&p->lock);
  if (why == NULL && p->have_facts)
    why = compare_facts (&p->facts, &facts);
  if (why) {
    snprintf (p->why, sizeof p->why, "%s", why);
    return false;
  }
  if (!p->have_facts) {
    p->facts = facts;
    p->have_facts = true;
    report_debug ("%s: %" PRIu64 " bytes, requests of %" PRIu32 " to %" PRIu32
                  " bytes%s%s%s%s%s%s%s%s", p->uri, facts.size, facts.minimum,
                  facts.maximum, facts.readonly ? ", read-only" : "",
                  facts.multi_conn ? ", multi-conn" : "",
                  facts.can_flush ? ", flush" : "",
                  facts.can_zero ? ", zero" : "",
                  facts.can_fast_zero ? ", fast zero" : "",
                  facts.can_trim ? ", trim" : "",
                  facts.can_cache ? ", cache" : "",
                  facts.can_extents ? ", extents" : "");
  }
  return true;
}

static struct nbd_handle *
make_connection (struct link *l)
{
  struct nbd_handle *h = libnbd.create ();

  if (h == NULL) {
    note_failure (l->pool, error_of_libnbd ());
    return NULL;
  }
  if (!negotiate (l, h) || !accept_facts (l->pool, h)) {
    libnbd.close (h);
    return NULL;
  }
  set_keepalive (libnbd.aio_get_fd (h));
  return h;
}

/* --- the link's thread --- */

static bool
any_up (struct nbd_pool *p)
{
  for (unsigned i = 0; i < p->nr_links; i++)
    if (p->link[i].up)
      return true;
  return false;
}

/* Under the pool's lock. */
static bool
is_wanted (const struct link *l)
{
  struct nbd_pool *p = l->pool;

  if (p->given_up)
    return false;
  return any_up (p) ? l->tried != p->ups : p->waiting > 0;
}

static void
bring_up (struct link *l, struct nbd_handle *h)
{
  struct nbd_pool *p = l->pool;

  l->mark = p->events.mark (p->events.opaque);
  {
    LOCK_FOR_SCOPE (&l->issue);
    l->h = h;
    l->generation++;
    l->drop = false;
    l->up = true;
  }
  LOCK_FOR_SCOPE (&p->lock);
  l->tried = ++p->ups;
  if (p->said_lost)
    report_warning ("%s: connected to the NBD server again", p->uri);
  p->said_lost = false;
  pthread_cond_broadcast (&p->changed);
  pthread_cond_broadcast (&p->wake);
}

/* Handles answers until the connection has to end. */
static void
serve (struct link *l, struct nbd_handle *h, char *why, size_t why_size)
{
  struct nbd_pool *p = l->pool;
  int64_t progress = now (), looked = progress;

  snprintf (why, why_size, "%s", "it was closed");
  while (!p->closing && !l->drop) {
    const int r = handle_events (l, h, TICK);
    int64_t time;

    if (r == -1)
      snprintf (why, why_size, "%s", error_of_libnbd ());
    if (!is_alive (h))
      return;

    time = now ();
    if (r == 1 || l->in_flight == 0)
      progress = time;
    if (time - progress < TICK || time - looked < TICK)
      continue;
    looked = time;
    look_whether_nbdkit_stops (p);
    if (p->quitting && time - progress > QUIT_TIME
        && time - p->quit_time > QUIT_TIME) {
      report_error ("%s: the NBD server has not answered for %d seconds, and "
                    "is given up on", p->uri, QUIT_TIME / 1000);
      p->given_up = true;
      return;
    }
  }
}

static void
take_down (struct link *l, struct nbd_handle *h, const char *why)
{
  struct nbd_pool *p = l->pool;

  {
    LOCK_FOR_SCOPE (&l->issue);
    l->up = false;
    l->h = NULL;
    l->generation++;
  }
  if (p->closing) {
    libnbd.aio_disconnect (h, 0); /* says goodbye, but does not wait */
    libnbd.close (h);
    return;
  }

  p->events.lost (p->events.opaque);
  {
    LOCK_FOR_SCOPE (&p->lock);
    snprintf (p->why, sizeof p->why, "%s", why);
    if (!any_up (p) && !p->said_lost && report_allowed (&p->limit)) {
      report_error ("%s: the connection to the NBD server is lost: %s",
                    p->uri, why);
      p->said_lost = true;
    }
    l->tried = p->ups - 1;
    if (p->given_up)
      pthread_cond_broadcast (&p->changed);
  }
  /* Now those who still waited for an answer know, too. */
  libnbd.close (h);
}

/* Waits before the next try.  Returns with the pool's lock held, as it is
 * called.
 */
static void
pause_link (struct link *l)
{
  struct nbd_pool *p = l->pool;
  const int64_t end = now () + l->pause;

  while (l->pause && !p->closing && !p->given_up && now () < end)
    wait_until (&p->wake, &p->lock, end);
}

static void
longer_pause (struct link *l)
{
  l->pause = l->pause ? l->pause * 2 : 50;
  if (l->pause > MAX_PAUSE)
    l->pause = MAX_PAUSE;
}

static void *
link_thread (void *arg)
{
  struct link *l = arg;
  struct nbd_pool *p = l->pool;

  pthread_mutex_lock (&p->lock);
  while (!p->closing) {
    struct nbd_handle *h;

    if (!is_wanted (l)) {
      pthread_cond_wait (&p->wake, &p->lock);
      continue;
    }
    pause_link (l);
    l->tried = p->ups;
    pthread_mutex_unlock (&p->lock);

    h = make_connection (l);
    if (h) {
      const int64_t since = now ();
      char why[256];

      bring_up (l, h);
      serve (l, h, why, sizeof why);
      take_down (l, h, why);
      if (now () - since > STABLE_TIME)
        l->pause = 0;
      else
        longer_pause (l);
      pthread_mutex_lock (&p->lock);
    }
    else {
      look_whether_nbdkit_stops (p);
      longer_pause (l);
      pthread_mutex_lock (&p->lock);
      report_debug ("%s: no connection: %s", p->uri, p->why);
      p->failures++;
      pthread_cond_broadcast (&p->changed);
    }
  }
  pthread_mutex_unlock (&p->lock);
  return NULL;
}

/* --- requests --- */

/* The link that has least to do, the first one of several. */
static struct link *
pick_link (struct nbd_pool *p, const struct nbd_request *r)
{
  struct link *best = NULL;
  unsigned least = 0;

  for (unsigned i = 0; i < p->nr_links; i++) {
    struct link *l = &p->link[i];
    const unsigned n = l->in_flight;

    if (l->up && !(r->limited && l->mark > r->max_mark)
        && (best == NULL || n < least)) {
      best = l;
      least = n;
    }
  }
  return best;
}

/* A link that is up for the request; NULL (reported) if there is none until
 * deadline.
 */
static struct link *
get_link (struct nbd_pool *p, const struct nbd_request *r, int64_t deadline)
{
  struct link *l = p->given_up ? NULL : pick_link (p, r);

  if (l || r->limited)
    return l;
  LOCK_FOR_SCOPE (&p->lock);
  p->waiting++;
  pthread_cond_broadcast (&p->wake);
  while (!p->given_up && (l = pick_link (p, r)) == NULL && now () < deadline)
    wait_until (&p->changed, &p->lock, deadline);
  p->waiting--;
  if (l)
    return l;
  if (p->quitting && !p->given_up) {
    p->given_up = true;
    pthread_cond_broadcast (&p->changed);
    pthread_cond_broadcast (&p->wake);
  }
  report_limited (&p->limit, "%s: a request failed, because there is no "
                  "connection to the NBD server: %s", p->uri, p->why);
  return NULL;
}

/* Callbacks of libnbd. */

static int
on_completion (void *opaque, int *error)
{
  struct nbd_request *r = opaque;

  r->error = *error;
  return 1;                     /* libnbd forgets the command by itself */
}

static void
on_free (void *opaque)
{
  struct nbd_request *r = opaque;
  LOCK_FOR_SCOPE (&r->lock);

  r->done = true;
  pthread_cond_signal (&r->cond);
}

static int
on_extents (void *opaque, const char *context, uint64_t offset,
            uint32_t *entries, size_t nr_entries, int *error)
{
  struct nbd_request *r = opaque;
  struct nbd_extents *e = r->extents;

  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
    return 0;
  e->start = offset;
  e->nr = 0;
  for (size_t i = 0; i + 1 < nr_entries; i += 2) {
    const uint32_t length = entries[i], type = entries[i + 1] & 3;

    offset += length;
    if (e->nr && e->extent[e->nr - 1].type == type)
      e->extent[e->nr - 1].end = offset;
    else if (length && e->nr < NBD_MAX_EXTENTS) {
      e->extent[e->nr].end = offset;
      e->extent[e->nr++].type = type;
    }
    else if (length)
      break;
  }
  return 0;
}

static int64_t
start_command (struct nbd_handle *h, struct nbd_request *r)
{
  const nbd_completion_callback completion = {
    .callback = on_completion, .user_data = r, .free = on_free,
  };
  const nbd_extent_callback extents = {
    .callback = on_extents, .user_data = r,
  };

  switch (r->command) {
  case NBD_READ:
    return libnbd.aio_pread (h, r->buf, r->count, r->offset, completion,
                             r->flags);
  case NBD_WRITE:
    return libnbd.aio_pwrite (h, r->data, r->count, r->offset, completion,
                              r->flags);
  case NBD_ZERO:
    return libnbd.aio_zero (h, r->count, r->offset, completion, r->flags);
  case NBD_CACHE:
    return libnbd.aio_cache (h, r->count, r->offset, completion, r->flags);
  case NBD_EXTENTS:
    return libnbd.aio_block_status (h, r->count, r->offset, extents,
                                    completion, r->flags);
  case NBD_FLUSH:
    break;
  }
  return libnbd.aio_flush (h, completion, r->flags);
}

/* Takes a link out of use, if it is still what it was. */
static void
retire_link (struct link *l, unsigned generation)
{
  {
    LOCK_FOR_SCOPE (&l->issue);
    if (l->generation != generation)
      return;
    l->up = false;
    l->drop = true;
  }
  kick (l);
}

/* Sends a request on a link.  Returns false if the link turns out not to be
 * up: then nothing was sent.
 */
static bool
send_request (struct link *l, struct nbd_request *r, unsigned *generation)
{
  bool sent = true, wake;

  {
    LOCK_FOR_SCOPE (&l->issue);
    if (!l->up)
      return false;
    *generation = l->generation;
    r->done = false;
    r->error = ENOTCONN;        /* if nobody says otherwise */
    l->in_flight++;
    if (start_command (l->h, r) == -1) {
      /* on_free has been called already, or will not be called. */
      r->done = true;
      r->error = libnbd.get_errno () ? libnbd.get_errno () : EIO;
      sent = is_alive (l->h);
    }
    /* The thread waits to receive; it knows of nothing else yet. */
    wake = libnbd.aio_get_direction (l->h) != LIBNBD_AIO_DIRECTION_READ;
  }
  if (wake)
    kick (l);
  if (!sent) {
    l->in_flight--;
    retire_link (l, *generation);
  }
  return sent;
}

static int
run_once (struct nbd_pool *p, struct nbd_request *r, int64_t deadline)
{
  struct link *l;
  unsigned generation;

  do {
    l = get_link (p, r, deadline);
    if (l == NULL)
      return r->limited ? -ENOTCONN : -EIO;
  } while (!send_request (l, r, &generation));

  pthread_mutex_lock (&r->lock);
  while (!r->done)
    pthread_cond_wait (&r->cond, &r->lock);
  pthread_mutex_unlock (&r->lock);
  l->in_flight--;
  /* A server that is about to stop says ESHUTDOWN. */
  if (r->error != ENOTCONN && r->error != ESHUTDOWN)
    return -r->error;
  retire_link (l, generation);
  return -ENOTCONN;
}

int
nbd_pool_wait (struct nbd_pool *p)
{
  const struct nbd_request any = { .limited = false };

  return get_link (p, &any, now () + WAIT_TIME) ? 0 : -EIO;
}

int
nbd_pool_run (struct nbd_pool *p, struct nbd_request *r)
{
  int64_t deadline = now () + WAIT_TIME;
  bool again = false;
  int e;

  pthread_mutex_init (&r->lock, NULL);
  pthread_cond_init (&r->cond, NULL);
  do {
    e = run_once (p, r, deadline);
    if (e == -ENOTCONN && r->again && !again) {
      /* It may have waited for long already. */
      deadline = now () + WAIT_TIME;
      again = true;
    }
  } while (e == -ENOTCONN && again && now () < deadline);
  pthread_cond_destroy (&r->cond);
  pthread_mutex_destroy (&r->lock);
  return e == -ENOTCONN && again ? -EIO : e;
}

/* --- opening and closing --- */

static bool
start_link (struct nbd_pool *p, unsigned i)
{
  struct link *l = &p->link[i];
  sigset_t all, old;
  int err;

  l->pool = p;
  l->kick_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (l->kick_fd == -1)
    return false;
  pthread_mutex_init (&l->issue, NULL);
  /* Signals are for nbdkit's threads. */
  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  err = pthread_create (&l->thread, NULL, link_thread, l);
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  if (err) {
    pthread_mutex_destroy (&l->issue);
    close (l->kick_fd);
    errno = err;
    return false;
  }
  p->nr_links = i + 1;
  return true;
}

void
nbd_pool_close (struct nbd_pool *p)
{
  {
    LOCK_FOR_SCOPE (&p->lock);
    p->closing = true;
    pthread_cond_broadcast (&p->wake);
  }
  for (unsigned i = 0; i < p->nr_links; i++) {
    struct link *l = &p->link[i];

    kick (l);
    pthread_join (l->thread, NULL);
    pthread_mutex_destroy (&l->issue);
    close (l->kick_fd);
  }
  pthread_cond_destroy (&p->changed);
  pthread_cond_destroy (&p->wake);
  pthread_mutex_destroy (&p->lock);
  free (p->uri);
  free (p);
}

/* Waits until the first link is up or could not come up. */
static bool
first_link (struct nbd_pool *p)
{
  LOCK_FOR_SCOPE (&p->lock);
  p->waiting++;
  pthread_cond_broadcast (&p->wake);
  while (p->ups == 0 && p->failures == 0)
    pthread_cond_wait (&p->changed, &p->lock);
  p->waiting--;
  if (p->ups == 0)
    report_error ("%s: cannot connect to the NBD server: %s", p->uri, p->why);
  return p->ups > 0;
}

struct nbd_pool *
nbd_pool_open (const char *uri, const struct nbd_events *events,
               struct nbd_facts *facts)
{
  struct nbd_pool *p = calloc (1, sizeof *p);

  if (p == NULL || (p->uri = strdup (uri)) == NULL) {
    report_error ("%s: %s", uri, strerror (ENOMEM));
    free (p);
    return NULL;
  }
  p->events = *events;
  p->limit = (struct report_limit) REPORT_LIMIT_INIT;
  pthread_mutex_init (&p->lock, NULL);
  init_cond (&p->wake);
  init_cond (&p->changed);

  if (!start_link (p, 0)) {
    report_error ("%s: no thread for the connection: %s", uri,
                  strerror (errno));
    nbd_pool_close (p);
    return NULL;
  }
  if (!first_link (p)) {
    nbd_pool_close (p);
    return NULL;
  }
  *facts = p->facts;
  /* The others are welcome, but not needed. */
  if (facts->multi_conn)
    for (unsigned i = 1; i < MAX_LINKS && start_link (p, i); i++)
      ;
  return p;
}

#endif /* HAVE_LIBNBD */
