/* qcow2ext: making a connection to an NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#ifdef HAVE_LIBNBD

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "load-libnbd.h"
#include "nbd-connect.h"
#include "nbd-link.h"

/* For one try to connect, milliseconds. */
#define CONNECT_TIME 10000

/* Where a server does not say its limits. */
#define MAX_REQUEST (UINT32_C (32) << 20)

bool
nbd_is_alive (struct nbd_handle *h)
{
  return libnbd.aio_is_ready (h) == 1 || libnbd.aio_is_processing (h) == 1;
}

static bool
has_ended (struct nbd_handle *h)
{
  return libnbd.aio_is_dead (h) == 1 || libnbd.aio_is_closed (h) == 1;
}

int
nbd_handle_events (struct nbd_link *l, struct nbd_handle *h, int timeout)
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
compare_facts (const struct nbd_pool *p, const struct nbd_facts *f)
{
  const struct nbd_facts *old = &p->facts;

  if (f->size < old->size)
    return "the export has become smaller";
  if (f->readonly && !old->readonly)
    return "the export has become read-only";
  if (f->minimum > old->minimum || f->maximum < old->maximum)
    return "it now demands other block sizes";
  /* Changes are spread over the links, and one flush has to cover them all. */
  if (p->writable && f->multi_conn < old->multi_conn)
    return "it no longer allows several connections (multi-conn); start it "
      "as it was, or nbdkit again";
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

const char *
nbd_last_error (void)
{
  const char *error = libnbd.get_error ();

  return error ? error : "the connection was closed";
}

/* Connects, as far as being ready for requests.  Returns false if it does not
 * come to that, with the reason noted.
 */
static bool
negotiate (struct nbd_link *l, struct nbd_handle *h)
{
  struct nbd_pool *p = l->pool;
  const int64_t deadline = nbd_now () + CONNECT_TIME;

  if (libnbd.set_uri_allow_local_file (h, true) == -1
      || libnbd.add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1
      || libnbd.aio_connect_uri (h, p->uri) == -1) {
    note_failure (p, nbd_last_error ());
    return false;
  }
  while (!nbd_is_alive (h)) {
    const int64_t left = deadline - nbd_now ();

    if (p->closing || p->given_up)
      return false;
    if (has_ended (h)) {
      note_failure (p, "the connection was closed");
      return false;
    }
    if (left <= 0) {
      note_failure (p, "the server does not answer (qemu-nbd takes one client "
                    "at a time unless it has -e 0)");
      return false;
    }
    if (nbd_handle_events (l, h, left) == -1) {
      note_failure (p, nbd_last_error ());
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
    why = compare_facts (p, &facts);
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

struct nbd_handle *
nbd_connect (struct nbd_link *l)
{
  struct nbd_handle *h = libnbd.create ();

  if (h == NULL) {
    note_failure (l->pool, nbd_last_error ());
    return NULL;
  }
  if (!negotiate (l, h) || !accept_facts (l->pool, h)) {
    libnbd.close (h);
    return NULL;
  }
  set_keepalive (libnbd.aio_get_fd (h));
  return h;
}

#endif /* HAVE_LIBNBD */
