/* qcow2ext: a store over another NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The connections are those of nbd-pool.c; here is what may be done when one
 * is lost.  A server that went away may have lost every change that it has not
 * flushed, acknowledged or not; or it is still there, and may yet do what was
 * under way.
 *
 *   clean --change--> unflushed --flush--> clean
 *                         |
 *             a connection is lost, or the fate of a change is unknown
 *                         v
 *                       lost: changes and flushes fail, until the end
 *
 * In the state clean a lost connection is nobody's loss: another one takes its
 * place.  Reading is repeated in every state.
 *
 * A change is counted when it begins and when it ends.  A flush that begins
 * while none is under way covers all that have begun.  With changes under way
 * it may cover less than it could, and the state is unflushed for longer than
 * it had to be.
 *
 * A flush says something about changes only if the server that did them is the
 * one that answers, and not another one that has come in its place while some
 * connection has not noticed yet.  So it is sent on a connection that is older
 * than all changes that it covers: its mark, the count of changes when it was
 * made, says so.
 *
 * The first flush is sent in any case: a server like us, which was killed, may
 * have written what our clients now read, and not have flushed it.  Until there
 * are changes of ours, that flush may be sent again, like reading.
 *
 * Trim requests are not sent.  They promise nothing of what is read
 * afterwards, and the engine wants zeros.  Zeroing may give space back, too,
 * and is what is sent instead: with the demand that it be fast or, where that
 * cannot be demanded, if the server could trim.
 *
 * The last answer about extents is kept until the next change begins, so that
 * a map is not one question for each of its extents.
 */

#include "build-config.h"

#ifdef HAVE_LIBNBD

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "base/cleanup.h"
#include "nbd-pool.h"
#include "base/report.h"
#include "store-blocks.h"
#include "store-nbd.h"

/* Of one request, bytes. */
#define MAX_ZERO (UINT64_C (1) << 30)
#define MAX_ASK (UINT64_C (1) << 30)

struct store_nbd {
  struct store store;
  struct nbd_pool *pool;        /* NULL: a placeholder */
  struct nbd_facts facts;

  pthread_mutex_t lock;         /* guards the rest */
  uint64_t begun, ended;        /* changes */
  uint64_t flushed;             /* so many of those begun are durable */
  bool inherited;               /* what was there at first may not be */
  bool lost;
  struct nbd_extents *map;      /* the last answer, or NULL */
  uint64_t map_begun;           /* begun when it was asked for */
};

/* Under the lock. */
static void
set_lost (struct store_nbd *s)
{
  if (!s->lost)
    report_error ("%s: the connection to the NBD server was lost while it had "
                  "changes that were not flushed: it may have lost them.  "
                  "Changes fail until nbdkit is started again",
                  s->store.name);
  s->lost = true;
}

static uint64_t
mark (void *opaque)
{
  struct store_nbd *s = opaque;
  LOCK_FOR_SCOPE (&s->lock);

  return s->begun;
}

static void
connection_lost (void *opaque)
{
  struct store_nbd *s = opaque;
  LOCK_FOR_SCOPE (&s->lock);

  if (s->begun != s->flushed)
    set_lost (s);
}

/* Does something that may be done more than once. */
static int
run_again (struct store_nbd *s, struct nbd_request *request)
{
  request->again = true;
  return s->pool ? nbd_pool_run (s->pool, request) : -EIO;
}

/* Does a change. */
static int
run_change (struct store_nbd *s, struct nbd_request *request)
{
  int r;

  /* A change that waits for a connection has not begun: it would be older than
   * that connection.
   */
  if (s->pool == NULL || nbd_pool_wait (s->pool) < 0)
    return -EIO;
  {
    LOCK_FOR_SCOPE (&s->lock);
    if (s->lost)
      return -EIO;
    s->begun++;
  }
  r = nbd_pool_run (s->pool, request);
  LOCK_FOR_SCOPE (&s->lock);
  s->ended++;
  if (r != -ENOTCONN)
    return r;
  set_lost (s);
  return -EIO;
}

static int
nbd_store_pread (struct store *store, void *buf, size_t count,
                 uint64_t offset)
{
  struct nbd_request r = {
    .command = NBD_READ, .buf = buf, .count = count, .offset = offset,
  };

  return run_again ((struct store_nbd *) store, &r);
}

static int
nbd_store_get_size (struct store *store, uint64_t *size)
{
  *size = ((struct store_nbd *) store)->facts.size;
  return 0;
}

/* Looks offset up in an answer. */
static bool
find_extent (const struct nbd_extents *map, uint64_t offset, uint64_t *end,
             unsigned *type)
{
  unsigned low = 0, high = map->nr;

  if (offset < map->start)
    return false;
  while (low < high) {          /* the first that ends behind offset */
    const unsigned middle = low + (high - low) / 2;

    if (map->extent[middle].end <= offset)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == map->nr)
    return false;
  *end = map->extent[low].end;
  *type = map->extent[low].type;
  if (!(*type & EXTENT_ZERO))   /* a hole that reads as anything is data */
    *type = EXTENT_DATA;
  return true;
}

static int
nbd_store_extent (struct store *store, uint64_t offset, uint64_t *end,
                  unsigned *type)
{
  struct store_nbd *s = (struct store_nbd *) store;
  const uint64_t left = s->facts.size - offset;
  struct nbd_request r = {
    .command = NBD_EXTENTS, .count = left < MAX_ASK ? left : MAX_ASK,
    .offset = offset,
  };
  struct nbd_extents *map;
  uint64_t begun;
  bool quiet, known;

  *end = UINT64_MAX;
  *type = EXTENT_DATA;
  if (!s->facts.can_extents)
    return 0;

  {
    LOCK_FOR_SCOPE (&s->lock);
    begun = s->begun;
    quiet = begun == s->ended;
    /* Who writes, too, wants to know of one place; the others of all. */
    if (s->map == NULL || s->map_begun != begun)
      r.flags = LIBNBD_CMD_FLAG_REQ_ONE;
    else if (find_extent (s->map, offset, end, type))
      return 0;
  }

  map = calloc (1, sizeof *map);
  if (map == NULL)
    return -ENOMEM;
  r.extents = map;
  if (run_again (s, &r) < 0)    /* not to know is no error */
    map->nr = 0;
  known = find_extent (map, offset, end, type);
  if (known && quiet) {
    LOCK_FOR_SCOPE (&s->lock);
    free (s->map);
    s->map = map;
    s->map_begun = begun;
  }
  else
    free (map);
  return 0;
}

static int
nbd_store_cache (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_nbd *s = (struct store_nbd *) store;
  struct nbd_request r = {
    .command = NBD_CACHE, .count = count, .offset = offset,
  };

  return s->facts.can_cache ? run_again (s, &r) : 0;
}

static int
nbd_store_pwrite (struct store *store, const void *buf, size_t count,
                  uint64_t offset)
{
  struct nbd_request r = {
    .command = NBD_WRITE, .data = buf, .count = count, .offset = offset,
  };

  return run_change ((struct store_nbd *) store, &r);
}

static int
nbd_store_zero (struct store *store, uint64_t count, uint64_t offset,
                unsigned flags)
{
  struct store_nbd *s = (struct store_nbd *) store;
  struct nbd_request r = {
    .command = NBD_ZERO, .count = count, .offset = offset,
    .flags = (flags & STORE_ZERO_PUNCH ? 0 : LIBNBD_CMD_FLAG_NO_HOLE)
      | (flags & STORE_ZERO_FAST ? LIBNBD_CMD_FLAG_FAST_ZERO : 0),
  };
  int err;

  if (!s->facts.can_zero
      || ((flags & STORE_ZERO_FAST) && !s->facts.can_fast_zero))
    return -ENOTSUP;
  err = run_change (s, &r);
  return err == -EOPNOTSUPP ? -ENOTSUP : err;
}

static int
nbd_store_discard (struct store *store, uint64_t count, uint64_t offset)
{
  const struct nbd_facts *f = &((struct store_nbd *) store)->facts;

  if (!f->can_fast_zero && !f->can_trim)
    return -ENOTSUP;
  return nbd_store_zero (store, count, offset, STORE_ZERO_PUNCH
                         | (f->can_fast_zero ? STORE_ZERO_FAST : 0));
}

static int
nbd_store_flush (struct store *store)
{
  struct store_nbd *s = (struct store_nbd *) store;
  struct nbd_request request = { .command = NBD_FLUSH, .limited = true };
  uint64_t covers;
  int r;

  {
    LOCK_FOR_SCOPE (&s->lock);
    if (s->lost)
      return -EIO;
    if (s->begun == s->flushed && !s->inherited)
      return 0;
    covers = s->begun == s->ended ? s->begun : s->flushed;
    request.max_mark = s->flushed;
    if (s->begun == s->flushed) {
      request.limited = false;
      request.again = true;
    }
  }
  r = s->facts.can_flush ? nbd_pool_run (s->pool, &request) : 0;

  LOCK_FOR_SCOPE (&s->lock);
  if (r == -ENOTCONN)
    set_lost (s);
  if (s->lost)
    return -EIO;
  if (r == 0)
    s->inherited = false;
  if (r == 0 && covers > s->flushed)
    s->flushed = covers;
  return r;
}

static int
nbd_store_resize (struct store *store, uint64_t size)
{
  (void) store, (void) size;
  return -ENOTSUP;
}

static void
nbd_store_close (struct store *store)
{
  struct store_nbd *s = (struct store_nbd *) store;

  if (s->pool)
    nbd_pool_close (s->pool);
  pthread_mutex_destroy (&s->lock);
  free (s->map);
  free (s->store.name);
  free (s);
}

static const struct store_ops nbd_store_ops = {
  .pread = nbd_store_pread,
  .get_size = nbd_store_get_size,
  .extent = nbd_store_extent,
  .cache = nbd_store_cache,
  .pwrite = nbd_store_pwrite,
  .zero = nbd_store_zero,
  .discard = nbd_store_discard,
  .flush = nbd_store_flush,
  .resize = nbd_store_resize,
  .close = nbd_store_close,
};

int
store_nbd_placeholder (const char *uri, struct store **store)
{
  struct store_nbd *s = calloc (1, sizeof *s);

  if (s == NULL || (s->store.name = strdup (uri)) == NULL) {
    report_error ("%s: %s", uri, strerror (ENOMEM));
    free (s);
    return -ENOMEM;
  }
  s->store.ops = &nbd_store_ops;
  s->store.readonly = true;
  pthread_mutex_init (&s->lock, NULL);
  *store = &s->store;
  return 0;
}

int
store_nbd_open (const char *uri, bool writable, struct store **store)
{
  struct block_limits limits;
  struct store_nbd *s;
  int r;

  if ((r = store_nbd_placeholder (uri, store)) < 0)
    return r;
  s = (struct store_nbd *) *store;
  *store = NULL;
  s->pool = nbd_pool_open (uri, writable, &(struct nbd_events) {
                             .mark = mark,
                             .lost = connection_lost,
                             .opaque = s,
                           }, &s->facts);
  if (s->pool == NULL) {
    nbd_store_close (&s->store);
    return -EIO;
  }
  s->store.fixed_size = true;
  s->inherited = true;
  s->store.readonly = s->facts.readonly || !writable;
  if (s->facts.readonly && writable)
    report_warning ("%s: the NBD server offers this export read-only", uri);

  limits = (struct block_limits) {
    .minimum = s->facts.minimum,
    .maximum = s->facts.maximum,
    .maximum_zero = MAX_ZERO,
  };
  *store = store_blocks_new (&s->store, &limits, NULL);
  if (*store == NULL) {
    report_error ("%s: %s", uri, strerror (errno));
    return -ENOMEM;
  }
  return 0;
}

#endif /* HAVE_LIBNBD */
