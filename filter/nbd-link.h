/* qcow2ext: a connection to an NBD server, which is made again when lost.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_NBD_LINK_H
#define QCOW2EXT_NBD_LINK_H

#include <stdatomic.h>

#include "base/report.h"
#include "nbd-pool.h"

#define NBD_MAX_LINKS 4

struct nbd_handle;

struct nbd_link {
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
  atomic_uint era;              /* the pool's when it last began to connect */

  /* Under the pool's lock. */
  unsigned tried;               /* how often a link had come up when this one
                                   last tried */
  /* The thread's own. */
  unsigned pause;               /* before the next try, milliseconds */
};

/* The links to one server, and what they share. */
struct nbd_pool {
  char *uri;
  bool writable;                /* changes and flushes are sent */
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
  atomic_uint era;              /* ends when a link of it is lost; changed
                                   under lock */
  bool have_facts;
  struct nbd_facts facts;       /* of the first link; then constant */

  atomic_bool closing;
  atomic_bool quitting;         /* nbdkit stops */
  atomic_bool given_up;
  _Atomic int64_t quit_time;    /* when that was seen */

  atomic_uint nr_links;
  struct nbd_link link[NBD_MAX_LINKS];
};

/* Starts the link's thread, with signals blocked: they are for nbdkit's
 * threads.  Returns false with errno set.
 */
bool nbd_link_start (struct nbd_pool *p, unsigned i);

/* Ends the thread, and the connection, once the pool is closing. */
void nbd_link_end (struct nbd_link *l);

/* Makes the link's thread look around. */
void nbd_link_kick (struct nbd_link *l);

/* Whether requests may be sent on the link: it is up, and its era has not
 * ended.  A request that found it so under the issue lock is still sent, and
 * answered, if the era ends just then.
 */
bool nbd_link_is_usable (const struct nbd_link *l);

/* Takes a link out of use, if it is still what it was: generation says so.
 * Takes its issue lock.
 */
void nbd_link_retire (struct nbd_link *l, unsigned generation);

/* Milliseconds of CLOCK_MONOTONIC; and waits until such a time, on a condition
 * of that clock.
 */
int64_t nbd_now (void);
void nbd_wait_until (pthread_cond_t *cond, pthread_mutex_t *lock,
                     int64_t time);

#endif /* QCOW2EXT_NBD_LINK_H */
