/* qcow2ext: a store over the layer below in nbdkit.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The context is shared by all connections.  nbdkit locks a thread model that
 * is not parallel per connection, which protects nothing here: so where the
 * layers below are not parallel, every call takes one mutex.
 *
 * What the layer demands of a request (its block size constraints) is met
 * here, by reading more than was asked for and by splitting.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "store-next.h"

/* The largest request that every plugin takes. */
#define MAX_REQUEST (UINT32_C (32) << 20)

struct store_next {
  struct store store;
  nbdkit_next *next;
  uint64_t size;                /* fixed while the context is open */
  uint32_t minimum, maximum;    /* request sizes; minimum a power of 2 */
  bool can_cache, can_zero, can_fast_zero, can_flush;
  bool serialize;
};

/* One for all contexts: they share the layers below. */
static pthread_mutex_t serial_lock = PTHREAD_MUTEX_INITIALIZER;

/* Held (for writing) while part of a block is read, changed and written, so
 * that nobody else writes to that block meanwhile (for reading).
 */
static pthread_rwlock_t partial_lock = PTHREAD_RWLOCK_INITIALIZER;

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
read_blocks (struct store_next *s, void *buf, uint32_t count, uint64_t offset)
{
  return CALL (s, pread, buf, count, offset, 0);
}

/* The size of the first request that a range is split into: whole blocks, or
 * (partial) a part of one.
 */
static size_t
next_piece (const struct store_next *s, size_t count, uint64_t offset,
            bool *partial)
{
  const size_t mask = s->minimum - 1;
  size_t n;

  *partial = (offset & mask) || (count & ~mask) == 0;
  if (*partial) {
    n = s->minimum - (offset & mask);
    return n < count ? n : count;
  }
  n = count & ~mask;
  return n < s->maximum ? n : s->maximum;
}

/* Reads a part of one block. */
static int
read_partial (struct store_next *s, void *buf, size_t count, uint64_t offset)
{
  const uint64_t block = offset & -(uint64_t) s->minimum;
  const uint64_t left = s->size - block;
  CLEANUP_FREE uint8_t *bounce = malloc (s->minimum);
  int r;

  if (bounce == NULL)
    return -ENOMEM;
  r = read_blocks (s, bounce, left < s->minimum ? left : s->minimum, block);
  if (r == 0)
    memcpy (buf, bounce + (offset - block), count);
  return r;
}

static int
next_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  struct store_next *s = (struct store_next *) store;
  uint8_t *p = buf;
  int r;

  if (offset >= s->size || count > s->size - offset) {
    const size_t n = offset < s->size ? s->size - offset : 0;

    memset (p + n, 0, count - n);
    count = n;
  }

  while (count > 0) {
    bool partial;
    const size_t n = next_piece (s, count, offset, &partial);

    if (partial)
      r = read_partial (s, p, n, offset);
    else
      r = read_blocks (s, p, n, offset);
    if (r < 0)
      return r;
    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

static int
next_get_size (struct store *store, uint64_t *size)
{
  *size = ((struct store_next *) store)->size;
  return 0;
}

/* The engine asks only of data files, which are never read through here. */
static int
next_extent (struct store *store, uint64_t offset, uint64_t *end,
             unsigned *type)
{
  (void) store, (void) offset;
  *end = UINT64_MAX;
  *type = EXTENT_DATA;
  return 0;
}

static int
next_cache (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_next *s = (struct store_next *) store;
  const uint64_t mask = s->minimum - 1;
  uint64_t end;

  if (!s->can_cache || offset >= s->size)
    return 0;
  end = (offset + count + mask) & ~mask;
  offset &= ~mask;
  if (end > s->size)
    end = s->size;

  while (offset < end) {
    const uint64_t n = end - offset < s->maximum ? end - offset : s->maximum;
    const int r = CALL (s, cache, n, offset, 0);

    if (r < 0)
      return r;
    offset += n;
  }
  return 0;
}

/* Changes a part of one block. */
static int
write_partial (struct store_next *s, const void *buf, size_t count,
               uint64_t offset)
{
  const uint64_t block = offset & -(uint64_t) s->minimum;
  const uint64_t left = s->size - block;
  const uint32_t n = left < s->minimum ? left : s->minimum;
  CLEANUP_FREE uint8_t *bounce = malloc (s->minimum);
  int r;

  if (bounce == NULL)
    return -ENOMEM;
  pthread_rwlock_wrlock (&partial_lock);
  r = read_blocks (s, bounce, n, block);
  if (r == 0) {
    memcpy (bounce + (offset - block), buf, count);
    r = CALL (s, pwrite, bounce, n, block, 0);
  }
  pthread_rwlock_unlock (&partial_lock);
  return r;
}

static int
next_pwrite (struct store *store, const void *buf, size_t count,
             uint64_t offset)
{
  struct store_next *s = (struct store_next *) store;
  const uint8_t *p = buf;
  int r;

  if (offset > s->size || count > s->size - offset)
    return -ENOSPC;             /* nbdkit aborts on a write past the end */

  while (count > 0) {
    bool partial;
    const size_t n = next_piece (s, count, offset, &partial);

    if (partial)
      r = write_partial (s, p, n, offset);
    else {
      pthread_rwlock_rdlock (&partial_lock);
      r = CALL (s, pwrite, p, n, offset, 0);
      pthread_rwlock_unlock (&partial_lock);
    }
    if (r < 0)
      return r;
    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

static int
next_zero (struct store *store, uint64_t count, uint64_t offset,
           unsigned flags)
{
  struct store_next *s = (struct store_next *) store;
  const bool aligned = ((offset | count) & (s->minimum - 1)) == 0;
  CLEANUP_FREE uint8_t *zeros = NULL;
  int r;

  if (offset >= s->size)
    return 0;
  if (count > s->size - offset)
    count = s->size - offset;

  if (flags & STORE_ZERO_FAST && !(aligned && s->can_fast_zero))
    return -ENOTSUP;
  if (!(aligned && s->can_zero)) {
    zeros = calloc (1, count < MAX_REQUEST ? count : MAX_REQUEST);
    if (zeros == NULL)
      return -ENOMEM;
  }
  while (count > 0) {
    const uint32_t n = count < s->maximum ? count : s->maximum;

    if (zeros)
      r = next_pwrite (store, zeros, n, offset);
    else {
      pthread_rwlock_rdlock (&partial_lock);
      r = CALL (s, zero, n, offset,
                (flags & STORE_ZERO_PUNCH ? NBDKIT_FLAG_MAY_TRIM : 0)
                | (flags & STORE_ZERO_FAST ? NBDKIT_FLAG_FAST_ZERO : 0));
      pthread_rwlock_unlock (&partial_lock);
    }
    if (r < 0)
      return r == -EOPNOTSUPP ? -ENOTSUP : r;
    offset += n;
    count -= n;
  }
  return 0;
}

/* A trim of the layer below promises nothing about what is read then. */
static int
next_discard (struct store *store, uint64_t count, uint64_t offset)
{
  (void) store, (void) count, (void) offset;
  return -ENOTSUP;
}

static int
next_flush (struct store *store)
{
  struct store_next *s = (struct store_next *) store;

  return s->can_flush ? CALL (s, flush, 0) : 0;
}

static int
next_resize (struct store *store, uint64_t size)
{
  (void) store, (void) size;
  return -ENOTSUP;
}

static void
next_close (struct store *store)
{
  struct store_next *s = (struct store_next *) store;

  s->next->finalize (s->next);
  nbdkit_next_context_close (s->next);
  free (s->store.name);
  free (s);
}

static const struct store_ops next_ops = {
  .pread = next_pread,
  .get_size = next_get_size,
  .extent = next_extent,
  .cache = next_cache,
  .pwrite = next_pwrite,
  .zero = next_zero,
  .discard = next_discard,
  .flush = next_flush,
  .resize = next_resize,
  .close = next_close,
};

/* Asks the context everything that will be used, once: nbdkit caches the
 * answers, which is safe only before threads share it.
 */
static int
prepare (struct store_next *s)
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
  s->minimum = minimum ? minimum : 1;
  s->maximum = maximum && maximum < MAX_REQUEST ? maximum : MAX_REQUEST;
  s->maximum &= ~(s->minimum - 1);
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
store_next_open (nbdkit_backend *backend, const char *name, int readonly,
                 bool serialize)
{
  struct store_next *s = calloc (1, sizeof *s);

  if (s == NULL || (s->store.name = strdup (name)) == NULL) {
    nbdkit_error ("malloc: %m");
    free (s);
    return NULL;
  }
  s->store.ops = &next_ops;
  s->store.fixed_size = true;
  s->serialize = serialize;
  s->next = nbdkit_next_context_open (backend, readonly, "", 1);
  if (s->next == NULL) {
    free (s->store.name);
    free (s);
    return NULL;
  }
  if (prepare (s) == -1) {
    next_close (&s->store);
    return NULL;
  }
  return &s->store;
}
