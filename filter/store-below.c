/* qcow2ext: a store over the layer below in nbdkit.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The context is shared by all connections.  nbdkit locks a thread model that
 * is not parallel per connection, which protects nothing here: so where the
 * layers below are not parallel, every call takes one mutex.
 *
 * What the layer demands of a request (its block size constraints) is met by
 * store-blocks.c.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store-blocks.h"
#include "store-below.h"

/* The largest request that every plugin takes. */
#define MAX_REQUEST (UINT32_C (32) << 20)

struct store_below {
  struct store store;
  nbdkit_next *next;
  uint64_t size;                /* fixed while the context is open */
  struct block_limits limits;
  bool can_cache, can_zero, can_fast_zero, can_flush;
  bool serialize;
};

/* One for all contexts: they share the layers below. */
static pthread_mutex_t serial_lock = PTHREAD_MUTEX_INITIALIZER;

/* Likewise, for parts of blocks. */
static struct block_locks block_locks = BLOCK_LOCKS_INIT;

/* Calls a function of the layer below; an expression that is 0 or -errno. */
#define CALL(s, function, ...)                                          \
  ({                                                                    \
    int err_ = 0, r_;                                                   \
    if ((s)->serialize)                                                 \
      pthread_mutex_lock (&serial_lock);                                \
    r_ = (s)->next->function ((s)->next, __VA_ARGS__, &err_);           \
    if ((s)->serialize)                                                 \
      pthread_mutex_unlock (&serial_lock);                              \
    r_ == -1 ? (err_ ? -err_ : -EIO) : 0;                               \
  })

static int
below_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  struct store_below *s = (struct store_below *) store;

  return CALL (s, pread, buf, count, offset, 0);
}

static int
below_get_size (struct store *store, uint64_t *size)
{
  *size = ((struct store_below *) store)->size;
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

  return s->can_cache ? CALL (s, cache, count, offset, 0) : 0;
}

static int
below_pwrite (struct store *store, const void *buf, size_t count,
             uint64_t offset)
{
  struct store_below *s = (struct store_below *) store;

  return CALL (s, pwrite, buf, count, offset, 0);
}

static int
below_zero (struct store *store, uint64_t count, uint64_t offset,
           unsigned flags)
{
  struct store_below *s = (struct store_below *) store;
  int r;

  if (!s->can_zero || ((flags & STORE_ZERO_FAST) && !s->can_fast_zero))
    return -ENOTSUP;
  r = CALL (s, zero, count, offset,
            (flags & STORE_ZERO_PUNCH ? NBDKIT_FLAG_MAY_TRIM : 0)
            | (flags & STORE_ZERO_FAST ? NBDKIT_FLAG_FAST_ZERO : 0));
  return r == -EOPNOTSUPP ? -ENOTSUP : r;
}

/* A trim of the layer below promises nothing about what is read then. */
static int
below_discard (struct store *store, uint64_t count, uint64_t offset)
{
  (void) store, (void) count, (void) offset;
  return -ENOTSUP;
}

static int
below_flush (struct store *store)
{
  struct store_below *s = (struct store_below *) store;

  return s->can_flush ? CALL (s, flush, 0) : 0;
}

static int
below_resize (struct store *store, uint64_t size)
{
  (void) store, (void) size;
  return -ENOTSUP;
}

static void
below_close (struct store *store)
{
  struct store_below *s = (struct store_below *) store;

  s->next->finalize (s->next);
  nbdkit_next_context_close (s->next);
  free (s->store.name);
  free (s);
}

static const struct store_ops below_ops = {
  .pread = below_pread,
  .get_size = below_get_size,
  .extent = below_extent,
  .cache = below_cache,
  .pwrite = below_pwrite,
  .zero = below_zero,
  .discard = below_discard,
  .flush = below_flush,
  .resize = below_resize,
  .close = below_close,
};

/* Asks the context everything that will be used, once: nbdkit caches the
 * answers, which is safe only before threads share it.
 */
static int
prepare (struct store_below *s)
{
  uint32_t minimum, preferred, maximum;
  int64_t size;
  int r;

  if (s->next->prepare (s->next) == -1)
    return -1;
  size = s->next->get_size (s->next);
  if (size == -1)
    return -1;
  s->size = size;
  if (s->next->block_size (s->next, &minimum, &preferred, &maximum) == -1)
    return -1;
  if (minimum == 0)
    minimum = 1;
  if (maximum == 0 || maximum > MAX_REQUEST)
    maximum = MAX_REQUEST;
  maximum &= ~(minimum - 1);
  s->limits = (struct block_limits) {
    .minimum = minimum, .maximum = maximum, .maximum_zero = maximum,
  };
  if ((r = s->next->can_cache (s->next)) == -1)
    return -1;
  s->can_cache = r != NBDKIT_CACHE_NONE;
  if ((r = s->next->can_write (s->next)) == -1)
    return -1;
  s->store.readonly = r == 0;
  if ((r = s->next->can_flush (s->next)) == -1)
    return -1;
  s->can_flush = r;
  if ((r = s->next->can_zero (s->next)) == -1)
    return -1;
  s->can_zero = r > NBDKIT_ZERO_NONE;
  if ((r = s->next->can_fast_zero (s->next)) == -1)
    return -1;
  s->can_fast_zero = r == 1;
  return 0;
}

struct store *
store_below_open (nbdkit_backend *backend, const char *name, int readonly,
                  bool serialize)
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
  s->serialize = serialize;
  s->next = nbdkit_next_context_open (backend, readonly, "", 1);
  if (s->next == NULL) {
    free (s->store.name);
    free (s);
    return NULL;
  }
  if (prepare (s) == -1) {
    below_close (&s->store);
    return NULL;
  }
  store = store_blocks_new (&s->store, &s->limits, &block_locks);
  if (store == NULL)
    nbdkit_error ("malloc: %m");
  return store;
}
