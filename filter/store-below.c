/* qcow2ext: a store over the layer below in nbdkit.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The context is shared by all connections, unless it is one of an export of
 * the plugin: those nbdkit 1.32 and 1.42 cannot share.  It keeps its size; a
 * new one is opened to see whether a device has been enlarged.  The plugin may
 * have a connection to a server for each, and a flush may be about what went
 * over that one: so one is sent through each that has changed something.
 *
 * nbdkit locks a thread model that is not parallel per connection, which
 * protects nothing here: so where the layers below are not parallel, every call
 * takes one mutex, those that open and close a context, too.
 *
 * What the layer demands of a request (its block size constraints) is met by
 * store-blocks.c.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "directory.h"
#include "store-blocks.h"
#include "store-below.h"
#include "store-error.h"

/* The largest request that every plugin takes. */
#define MAX_REQUEST (UINT32_C (32) << 20)

/* One of nbdkit's.  It keeps its size for as long as it is open. */
struct context {
  struct context *older;        /* somebody may be using it still */
  nbdkit_next *next;
  uint64_t size;
  struct block_limits limits;
  bool readonly;
  bool can_cache, can_zero, can_fast_zero, can_flush;
  _Atomic uint64_t changes;     /* those that have ended */
  _Atomic uint64_t flushed;     /* so many of them */
};

struct store_below {
  struct store store;
  nbdkit_backend *backend;
  const char *export;           /* NULL: contexts are shared */
  int readonly;                 /* how contexts are opened */
  bool serialize;
  _Atomic (struct context *) context; /* the newest */
  pthread_mutex_t refresh_lock; /* held while another one is opened */
};

static struct context *
newest (const struct store_below *s)
{
  return atomic_load_explicit (&s->context, memory_order_acquire);
}

/* One for all contexts: they share the layers below. */
static pthread_mutex_t serial_lock = PTHREAD_MUTEX_INITIALIZER;

/* Likewise, for parts of blocks. */
static struct block_locks block_locks = BLOCK_LOCKS_INIT;

/* Calls a function of the layer below; an expression that is 0 or -errno. */
#define CALL(s, c, function, ...)                                       \
  ({                                                                    \
    nbdkit_next *next_ = (c)->next;                                     \
    int err_ = 0, r_;                                                   \
    if ((s)->serialize)                                                 \
      pthread_mutex_lock (&serial_lock);                                \
    r_ = next_->function (next_, __VA_ARGS__, &err_);                   \
    if ((s)->serialize)                                                 \
      pthread_mutex_unlock (&serial_lock);                              \
    r_ == -1 ? (err_ ? store_error (err_) : -EIO) : 0;                  \
  })

static int
below_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  struct store_below *s = (struct store_below *) store;

  return CALL (s, newest (s), pread, buf, count, offset, 0);
}

static int
below_get_size (struct store *store, uint64_t *size)
{
  *size = newest ((struct store_below *) store)->size;
  return 0;
}

/* The engine asks only of data files, which are never read through here. */
static int
below_extent (struct store *store, uint64_t offset, uint64_t *end,
             unsigned *type)
{
  (void) store, (void) offset;
  *end = UINT64_MAX;
  *type = EXTENT_DATA;
  return 0;
}

static int
below_cache (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_below *s = (struct store_below *) store;
  struct context *c = newest (s);

  return c->can_cache ? CALL (s, c, cache, count, offset, 0) : 0;
}

static int
below_pwrite (struct store *store, const void *buf, size_t count,
             uint64_t offset)
{
  struct store_below *s = (struct store_below *) store;
  struct context *c = newest (s);
  const int r = CALL (s, c, pwrite, buf, count, offset, 0);

  c->changes++;
  return r;
}

static int
below_zero (struct store *store, uint64_t count, uint64_t offset,
           unsigned flags)
{
  struct store_below *s = (struct store_below *) store;
  struct context *c = newest (s);
  int r;

  if (!c->can_zero || ((flags & STORE_ZERO_FAST) && !c->can_fast_zero))
    return -ENOTSUP;
  r = CALL (s, c, zero, count, offset,
            (flags & STORE_ZERO_PUNCH ? NBDKIT_FLAG_MAY_TRIM : 0)
            | (flags & STORE_ZERO_FAST ? NBDKIT_FLAG_FAST_ZERO : 0));
  c->changes++;
  return r == -EOPNOTSUPP ? -ENOTSUP : r;
}

/* A trim of the layer below promises nothing about what is read then. */
static int
below_discard (struct store *store, uint64_t count, uint64_t offset)
{
  (void) store, (void) count, (void) offset;
  return -ENOTSUP;
}

/* Flushes the newest context in any case: what is durable then may be the change
 * of a server before this one.
 */
static int
below_flush (struct store *store)
{
  struct store_below *s = (struct store_below *) store;
  struct context *const first = newest (s);
  int r = 0;

  for (struct context *c = first; c && r == 0; c = c->older) {
    const uint64_t changes = c->changes;

    if (c != first && changes == c->flushed)
      continue;
    if (c->can_flush)
      r = CALL (s, c, flush, 0);
    /* Not before it has succeeded: another flush may look at it. */
    if (r == 0)
      c->flushed = changes;
  }
  return r;
}

static int
below_resize (struct store *store, uint64_t size)
{
  (void) store, (void) size;
  return -ENOTSUP;
}

/* Asks the context everything that will be used, once: nbdkit caches the
 * answers, which is safe only before threads share it.
 */
static int
prepare (struct context *c)
{
  uint32_t minimum, preferred, maximum;
  int64_t size;
  int r;

  if (c->next->prepare (c->next) == -1)
    return -1;
  size = c->next->get_size (c->next);
  if (size == -1)
    return -1;
  c->size = size;
  if (c->next->block_size (c->next, &minimum, &preferred, &maximum) == -1)
    return -1;
  if (minimum == 0)
    minimum = 1;
  if (maximum == 0 || maximum > MAX_REQUEST)
    maximum = MAX_REQUEST;
  maximum &= ~(minimum - 1);
  c->limits = (struct block_limits) {
    .minimum = minimum, .maximum = maximum, .maximum_zero = maximum,
  };
  if ((r = c->next->can_cache (c->next)) == -1)
    return -1;
  c->can_cache = r != NBDKIT_CACHE_NONE;
  if ((r = c->next->can_write (c->next)) == -1)
    return -1;
  c->readonly = r == 0;
  if ((r = c->next->can_flush (c->next)) == -1)
    return -1;
  c->can_flush = r;
  if ((r = c->next->can_zero (c->next)) == -1)
    return -1;
  c->can_zero = r > NBDKIT_ZERO_NONE;
  if ((r = c->next->can_fast_zero (c->next)) == -1)
    return -1;
  c->can_fast_zero = r == 1;
  return 0;
}

/* Frees a context and all that are older. */
static void
contexts_close (const struct store_below *s, struct context *c)
{
  while (c) {
    struct context *older = c->older;

    if (c->next) {
      if (s->serialize)
        pthread_mutex_lock (&serial_lock);
      c->next->finalize (c->next);
      nbdkit_next_context_close (c->next);
      if (s->serialize)
        pthread_mutex_unlock (&serial_lock);
    }
    free (c);
    c = older;
  }
}

/* The plugin has said why it cannot open the file, but not what helps if there
 * are no descriptors left.  It needs two: that of the directory goes again.
 */
static void
explain_failure (const struct store_below *s)
{
  const int first = dup (STDERR_FILENO), second = dup (STDERR_FILENO);

  if (second == -1)
    nbdkit_error ("%s: %s", s->store.name, directory_explain (-errno));
  else
    close (second);
  if (first != -1)
    close (first);
}

/* Returns NULL (reported) if that fails. */
static struct context *
context_open (const struct store_below *s)
{
  struct context *c = calloc (1, sizeof *c);
  int r;

  if (c == NULL) {
    nbdkit_error ("malloc: %m");
    return NULL;
  }
  if (s->serialize)
    pthread_mutex_lock (&serial_lock);
  c->next = nbdkit_next_context_open (s->backend, s->readonly,
                                      s->export ? s->export : "",
                                      s->export == NULL);
  if (c->next == NULL)
    explain_failure (s);
  r = c->next ? prepare (c) : -1;
  if (s->serialize)
    pthread_mutex_unlock (&serial_lock);
  if (r == -1) {
    contexts_close (s, c);
    return NULL;
  }
  return c;
}

/* A context that has another size is a new one.  What the old one took has to
 * be taken by the new one: else it stays as it is.
 */
static int
below_refresh_size (struct store *store, uint64_t *size)
{
  struct store_below *s = (struct store_below *) store;
  LOCK_FOR_SCOPE (&s->refresh_lock);
  struct context *old = atomic_load (&s->context);
  struct context *c = context_open (s);

  if (c && c->size > old->size && c->readonly == old->readonly
      && c->limits.minimum == old->limits.minimum
      && c->limits.maximum >= old->limits.maximum) {
    c->older = old;
    atomic_store_explicit (&s->context, c, memory_order_release);
  }
  else
    contexts_close (s, c);
  *size = newest (s)->size;
  return 0;
}

static void
below_close (struct store *store)
{
  struct store_below *s = (struct store_below *) store;

  contexts_close (s, s->context);
  pthread_mutex_destroy (&s->refresh_lock);
  free (s->store.name);
  free (s);
}

static const struct store_ops below_ops = {
  .pread = below_pread,
  .get_size = below_get_size,
  .refresh_size = below_refresh_size,
  .extent = below_extent,
  .cache = below_cache,
  .pwrite = below_pwrite,
  .zero = below_zero,
  .discard = below_discard,
  .flush = below_flush,
  .resize = below_resize,
  .close = below_close,
};

struct store *
store_below_open (nbdkit_backend *backend, const char *export,
                  const char *name, int readonly, bool serialize)
{
  struct store_below *s = calloc (1, sizeof *s);
  struct store *store;

  if (s == NULL || (s->store.name = strdup (name)) == NULL) {
    nbdkit_error ("malloc: %m");
    free (s);
    return NULL;
  }
  s->store.ops = &below_ops;
  s->store.fixed_size = true;
  s->backend = backend;
  s->export = export;
  s->readonly = readonly;
  s->serialize = serialize;
  pthread_mutex_init (&s->refresh_lock, NULL);
  atomic_init (&s->context, context_open (s));
  if (s->context == NULL) {
    below_close (&s->store);
    return NULL;
  }
  s->store.readonly = newest (s)->readonly;
  store = store_blocks_new (&s->store, &newest (s)->limits, &block_locks);
  if (store == NULL)
    nbdkit_error ("malloc: %m");
  return store;
}
