/* qcow2ext: a connection to an NBD server, which is made again when lost.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each connection is a link with a thread of its own.  The thread connects,
 * waits for answers, and, once the connection is lost, connects again.
 * Requests are sent by those who make them, who then wait for the answer.
 *
 *   down --wanted--> connecting --agreed on everything--> up
 *     ^                  |                                 |
 *     +----- failed -----+---- lost, dropped, closing -----+
 *                              era over, all answered
 *
 * A link is wanted if none is usable and somebody waits for one, or if another
 * one has come up since it last tried: so all of them come back with the first.
 *
 * The links in use belong to one era.  It ends when one of them is lost, for
 * what answers when that one connects again may be another server, to which a
 * flush over an older link says nothing, and the reverse.  An older link gets
 * no more requests, ends when those that it has are answered, and connects
 * again.  So does one that was connecting when the era ended.  Within an era
 * links are made within seconds of each other.
 *
 * When nbdkit stops, a server that does not answer for some seconds is given
 * up on for good, and all requests fail.  nbdkit_nanosleep is what tells that
 * it stops; on a thread of ours it tells that alone, and not that some client
 * has gone.
 *
 * Locks: those that nbd-pool.c names.
 */

#include "build-config.h"

#ifdef HAVE_LIBNBD

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "load-libnbd.h"
#include "nbd-connect.h"
#include "nbd-link.h"

/* Milliseconds. */
#define QUIT_TIME 10000         /* for an answer, when nbdkit stops */
#define TICK 1000               /* between looks whether it does */
#define MAX_PAUSE 1000          /* between tries to connect */
#define STABLE_TIME 5000        /* a link that was up so long was a good one */

int64_t
nbd_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * INT64_C (1000) + ts.tv_nsec / 1000000;
}

void
nbd_wait_until (pthread_cond_t *cond, pthread_mutex_t *lock, int64_t time)
{
  const struct timespec ts = {
    .tv_sec = time / 1000, .tv_nsec = time % 1000 * 1000000,
  };

  pthread_cond_timedwait (cond, lock, &ts);
}

void
nbd_link_kick (struct nbd_link *l)
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
  p->quit_time = nbd_now ();
  p->quitting = true;
}

bool
nbd_link_is_usable (const struct nbd_link *l)
{
  return l->up && l->era == l->pool->era;
}

static bool
any_usable (struct nbd_pool *p)
{
  for (unsigned i = 0; i < p->nr_links; i++)
    if (nbd_link_is_usable (&p->link[i]))
      return true;
  return false;
}

/* Under the pool's lock. */
static bool
is_wanted (const struct nbd_link *l)
{
  struct nbd_pool *p = l->pool;

  if (p->given_up)
    return false;
  return any_usable (p) ? l->tried != p->ups : p->waiting > 0;
}

static void
bring_up (struct nbd_link *l, struct nbd_handle *h)
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
  if (l->era != p->era)
    return;
  l->tried = ++p->ups;
  if (p->said_lost)
    report_warning ("%s: connected to the NBD server again", p->uri);
  p->said_lost = false;
  pthread_cond_broadcast (&p->changed);
  pthread_cond_broadcast (&p->wake);
}

/* Whether the link's era is over and it has nothing more to answer. */
static bool
is_drained (struct nbd_link *l)
{
  if (l->era == l->pool->era)
    return false;
  /* A request that found the era to be the same has been sent by then. */
  LOCK_FOR_SCOPE (&l->issue);
  return l->in_flight == 0;
}

/* Handles answers until the connection has to end. */
static void
serve (struct nbd_link *l, struct nbd_handle *h, char *why, size_t why_size)
{
  struct nbd_pool *p = l->pool;
  int64_t progress = nbd_now (), looked = progress;

  snprintf (why, why_size, "%s", "it was closed");
  while (!p->closing && !l->drop && !is_drained (l)) {
    const int r = nbd_handle_events (l, h, TICK);
    int64_t time;

    if (r == -1)
      snprintf (why, why_size, "%s", nbd_last_error ());
    if (!nbd_is_alive (h))
      return;

    time = nbd_now ();
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

/* Notes, under the pool's lock, that a link of the present era is lost. */
static void
end_era (struct nbd_pool *p, const char *why)
{
  p->era++;
  /* The pool's user knows before any link connects again: that takes the
   * lock.
   */
  p->events.lost (p->events.opaque);
  /* Once the pool is closing, links end, and their kick_fd is closed. */
  for (unsigned i = 0; !p->closing && i < p->nr_links; i++)
    nbd_link_kick (&p->link[i]);
  snprintf (p->why, sizeof p->why, "%s", why);
  if (!p->said_lost && report_allowed (&p->limit)) {
    report_error ("%s: the connection to the NBD server is lost: %s",
                  p->uri, why);
    p->said_lost = true;
  }
}

static void
take_down (struct nbd_link *l, struct nbd_handle *h, const char *why)
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

  {
    LOCK_FOR_SCOPE (&p->lock);
    if (l->era == p->era)
      end_era (p, why);
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
pause_link (struct nbd_link *l)
{
  struct nbd_pool *p = l->pool;
  const int64_t end = nbd_now () + l->pause;

  while (l->pause && !p->closing && !p->given_up && nbd_now () < end)
    nbd_wait_until (&p->wake, &p->lock, end);
}

static void
longer_pause (struct nbd_link *l)
{
  l->pause = l->pause ? l->pause * 2 : 50;
  if (l->pause > MAX_PAUSE)
    l->pause = MAX_PAUSE;
}

static void *
link_thread (void *arg)
{
  struct nbd_link *l = arg;
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
    l->era = p->era;
    pthread_mutex_unlock (&p->lock);

    h = nbd_connect (l);
    if (h) {
      const int64_t since = nbd_now ();
      char why[256];

      bring_up (l, h);
      serve (l, h, why, sizeof why);
      take_down (l, h, why);
      if (nbd_now () - since > STABLE_TIME)
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

void
nbd_link_retire (struct nbd_link *l, unsigned generation)
{
  {
    LOCK_FOR_SCOPE (&l->issue);
    if (l->generation != generation)
      return;
    l->up = false;
    l->drop = true;
  }
  nbd_link_kick (l);
}

bool
nbd_link_start (struct nbd_pool *p, unsigned i)
{
  struct nbd_link *l = &p->link[i];
  sigset_t all, old;
  int err;

  l->pool = p;
  l->kick_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (l->kick_fd == -1)
    return false;
  pthread_mutex_init (&l->issue, NULL);
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
nbd_link_end (struct nbd_link *l)
{
  nbd_link_kick (l);
  pthread_join (l->thread, NULL);
  pthread_mutex_destroy (&l->issue);
  close (l->kick_fd);
}

#endif /* HAVE_LIBNBD */
