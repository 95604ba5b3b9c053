/* qcow2ext: connections to an NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The pool chooses the link (nbd-link.c) on which a request (nbd-request.c) is
 * sent.  There are several only if the server says that this is safe.
 *
 * Locks: issue (of a link) guards its handle, for as long as a request is
 * being sent; lock (of the pool) guards what is wanted.  Neither is taken with
 * the other one held, and neither in a callback of libnbd, which holds a lock
 * of its own; there only that of the request is taken.  The pool's user may take
 * its own lock when it is told of a loss, which is under the pool's.
 */

#include "build-config.h"

#ifdef HAVE_LIBNBD

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "nbd-link.h"
#include "nbd-pool.h"

/* Of a request, for a connection, milliseconds. */
#define WAIT_TIME 10000

/* The link that has least to do, the first one of several. */
static struct nbd_link *
pick_link (struct nbd_pool *p, const struct nbd_request *r)
{
  struct nbd_link *best = NULL;
  unsigned least = 0;

  for (unsigned i = 0; i < p->nr_links; i++) {
    struct nbd_link *l = &p->link[i];
    const unsigned n = l->in_flight;

    if (nbd_link_is_usable (l) && !(r->limited && l->mark > r->max_mark)
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
static struct nbd_link *
get_link (struct nbd_pool *p, const struct nbd_request *r, int64_t deadline)
{
  struct nbd_link *l = p->given_up ? NULL : pick_link (p, r);

  if (l || r->limited)
    return l;
  LOCK_FOR_SCOPE (&p->lock);
  p->waiting++;
  pthread_cond_broadcast (&p->wake);
  while (!p->given_up && (l = pick_link (p, r)) == NULL
         && nbd_now () < deadline)
    nbd_wait_until (&p->changed, &p->lock, deadline);
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

static int
run_once (struct nbd_pool *p, struct nbd_request *r, int64_t deadline)
{
  struct nbd_link *l;
  unsigned generation;
  int error;

  do {
    l = get_link (p, r, deadline);
    if (l == NULL)
      return r->limited ? -ENOTCONN : -EIO;
  } while (!nbd_request_send (l, r, &generation));

  error = nbd_request_wait (l, r);
  /* A server that is about to stop says ESHUTDOWN. */
  if (error != ENOTCONN && error != ESHUTDOWN)
    return -error;
  nbd_link_retire (l, generation);
  return -ENOTCONN;
}

int
nbd_pool_wait (struct nbd_pool *p)
{
  const struct nbd_request any = { .limited = false };

  return get_link (p, &any, nbd_now () + WAIT_TIME) ? 0 : -EIO;
}

int
nbd_pool_run (struct nbd_pool *p, struct nbd_request *r)
{
  int64_t deadline = nbd_now () + WAIT_TIME;
  bool again = false;
  int e;

  pthread_mutex_init (&r->lock, NULL);
  pthread_cond_init (&r->cond, NULL);
  do {
    e = run_once (p, r, deadline);
    if (e == -ENOTCONN && r->again && !again) {
      /* It may have waited for long already. */
      deadline = nbd_now () + WAIT_TIME;
      again = true;
    }
  } while (e == -ENOTCONN && again && nbd_now () < deadline);
  pthread_cond_destroy (&r->cond);
  pthread_mutex_destroy (&r->lock);
  return e == -ENOTCONN && again ? -EIO : e;
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

void
nbd_pool_close (struct nbd_pool *p)
{
  {
    LOCK_FOR_SCOPE (&p->lock);
    p->closing = true;
    pthread_cond_broadcast (&p->wake);
  }
  for (unsigned i = 0; i < p->nr_links; i++)
    nbd_link_end (&p->link[i]);
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
nbd_pool_open (const char *uri, bool writable,
               const struct nbd_events *events, struct nbd_facts *facts)
{
  struct nbd_pool *p = calloc (1, sizeof *p);

  if (p == NULL || (p->uri = strdup (uri)) == NULL) {
    report_error ("%s: %s", uri, strerror (ENOMEM));
    free (p);
    return NULL;
  }
  p->writable = writable;
  p->events = *events;
  p->limit = (struct report_limit) REPORT_LIMIT_INIT;
  pthread_mutex_init (&p->lock, NULL);
  init_cond (&p->wake);
  init_cond (&p->changed);

  if (!nbd_link_start (p, 0)) {
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
    for (unsigned i = 1; i < NBD_MAX_LINKS && nbd_link_start (p, i); i++)
      ;
  return p;
}

#endif /* HAVE_LIBNBD */
