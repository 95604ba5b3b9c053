/* qcow2ext: a store over one that takes only whole blocks.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store-blocks.h"

/* Zeros are written in pieces of this size. */
#define ZERO_CHUNK (1 << 20)

struct store_blocks {
  struct store store;           /* its name is that of inner */
  struct store *inner;
  _Atomic uint64_t size;        /* of inner; changed by refresh_size only */
  struct block_limits limits;
  struct block_locks *locks;    /* the store's own, or shared */
  struct block_locks own_locks;
};

static uint64_t
mask_of (const struct store_blocks *s)
{
  return (uint64_t) s->limits.minimum - 1;
}

/* Around a change of whole blocks, which must not come between the reading and
 * the writing of write_partial.
 */
static void
whole_begin (const struct store_blocks *s, struct block_lock *l,
             uint64_t count, uint64_t offset)
{
  if (s->limits.minimum > 1)
    block_lock (s->locks, l, offset, offset + count, false);
}

static void
whole_end (const struct store_blocks *s, struct block_lock *l)
{
  if (s->limits.minimum > 1)
    block_unlock (s->locks, l);
}

/* The size of the first request that a range is split into: whole blocks, or
 * (partial) a part of one.
 */
static size_t
next_piece (const struct store_blocks *s, size_t count, uint64_t offset,
            bool *partial)
{
  const size_t mask = mask_of (s);
  size_t n;

  *partial = (offset & mask) || (count & ~mask) == 0;
  if (*partial) {
    n = s->limits.minimum - (offset & mask);
    return n < count ? n : count;
  }
  n = count & ~mask;
  return n < s->limits.maximum ? n : s->limits.maximum;
}

/* How much of a range there is.  The size may grow at any moment, so it is looked
 * at once.
 */
static uint64_t
within (const struct store_blocks *s, uint64_t offset, uint64_t count)
{
  const uint64_t size = s->size;

  return offset >= size ? 0 : count < size - offset ? count : size - offset;
}

/* The block that holds offset, and how much of it there is. */
static uint32_t
block_at (const struct store_blocks *s, uint64_t offset, uint64_t *block)
{
  *block = offset & ~mask_of (s);
  return within (s, *block, s->limits.minimum);
}

/* Reads a part of one block. */
static int
read_partial (struct store_blocks *s, void *buf, size_t count,
              uint64_t offset)
{
  CLEANUP_FREE uint8_t *bounce = malloc (s->limits.minimum);
  uint64_t block;
  const uint32_t n = block_at (s, offset, &block);
  int r;

  if (bounce == NULL)
    return -ENOMEM;
  r = store_pread (s->inner, bounce, n, block);
  if (r == 0)
    memcpy (buf, bounce + (offset - block), count);
  return r;
}

static int
blocks_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  struct store_blocks *s = (struct store_blocks *) store;
  uint8_t *p = buf;
  const size_t there = within (s, offset, count);
  int r;

  memset (p + there, 0, count - there);
  count = there;
  while (count > 0) {
    bool partial;
    const size_t n = next_piece (s, count, offset, &partial);

    if (partial)
      r = read_partial (s, p, n, offset);
    else
      r = store_pread (s->inner, p, n, offset);
    if (r < 0)
      return r;
    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

static int
blocks_get_size (struct store *store, uint64_t *size)
{
  *size = ((struct store_blocks *) store)->size;
  return 0;
}

static int
blocks_refresh_size (struct store *store, uint64_t *size)
{
  struct store_blocks *s = (struct store_blocks *) store;
  const int r = store_refresh_size (s->inner, size);
  uint64_t known = s->size;

  while (r == 0 && known < *size
         && !atomic_compare_exchange_weak (&s->size, &known, *size))
    ;
  return r;
}

static int
blocks_extent (struct store *store, uint64_t offset, uint64_t *end,
               unsigned *type)
{
  struct store_blocks *s = (struct store_blocks *) store;
  uint64_t block;
  uint32_t n;
  int r;

  if (offset >= s->size) {
    *end = UINT64_MAX;
    *type = EXTENT_HOLE | EXTENT_ZERO;
    return 0;
  }
  n = block_at (s, offset, &block);
  r = store_extent (s->inner, block, end, type);
  if (r == 0 && *end <= offset) { /* more than one in a block */
    *end = block + n;
    *type = EXTENT_DATA;
  }
  return r;
}

static int
blocks_cache (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_blocks *s = (struct store_blocks *) store;
  uint64_t end;

  count = within (s, offset, count);
  if (count == 0)
    return 0;
  end = (offset + count + mask_of (s)) & ~mask_of (s);
  offset &= ~mask_of (s);
  end = offset + within (s, offset, end - offset);

  while (offset < end) {
    const uint64_t n = end - offset < s->limits.maximum ? end - offset
                                                        : s->limits.maximum;
    const int r = store_cache (s->inner, n, offset);

    if (r < 0)
      return r;
    offset += n;
  }
  return 0;
}

/* Changes a part of one block. */
static int
write_partial (struct store_blocks *s, const void *buf, size_t count,
               uint64_t offset)
{
  CLEANUP_FREE uint8_t *bounce = malloc (s->limits.minimum);
  uint64_t block;
  const uint32_t n = block_at (s, offset, &block);
  struct block_lock l;
  int r;

  if (bounce == NULL)
    return -ENOMEM;
  block_lock (s->locks, &l, block, block + n, true);
  r = store_pread (s->inner, bounce, n, block);
  if (r == 0) {
    memcpy (bounce + (offset - block), buf, count);
    r = store_pwrite (s->inner, bounce, n, block);
  }
  block_unlock (s->locks, &l);
  return r;
}

static int
blocks_pwrite (struct store *store, const void *buf, size_t count,
               uint64_t offset)
{
  struct store_blocks *s = (struct store_blocks *) store;
  const uint8_t *p = buf;
  int r;

  if (within (s, offset, count) < count)
    return -ENOSPC;

  while (count > 0) {
    bool partial;
    const size_t n = next_piece (s, count, offset, &partial);

    if (partial)
      r = write_partial (s, p, n, offset);
    else {
      struct block_lock l;

      whole_begin (s, &l, n, offset);
      r = store_pwrite (s->inner, p, n, offset);
      whole_end (s, &l);
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
write_zeros (struct store *store, uint64_t count, uint64_t offset)
{
  const size_t chunk = count < ZERO_CHUNK ? count : ZERO_CHUNK;
  CLEANUP_FREE void *zeros = NULL;

  if (count == 0)
    return 0;
  zeros = calloc (1, chunk);
  if (zeros == NULL)
    return -ENOMEM;
  while (count > 0) {
    const size_t n = count < chunk ? count : chunk;
    const int r = blocks_pwrite (store, zeros, n, offset);

    if (r < 0)
      return r;
    offset += n;
    count -= n;
  }
  return 0;
}

static int
blocks_zero (struct store *store, uint64_t count, uint64_t offset,
             unsigned flags)
{
  struct store_blocks *s = (struct store_blocks *) store;
  uint64_t end, pos, stop;
  int r;

  count = within (s, offset, count);
  if (count == 0)
    return 0;
  end = offset + count;

  pos = (offset + mask_of (s)) & ~mask_of (s);
  stop = end & ~mask_of (s);
  if ((flags & STORE_ZERO_FAST) && (pos != offset || stop != end))
    return -ENOTSUP;
  if (pos >= stop)
    return write_zeros (store, count, offset);

  if ((r = write_zeros (store, pos - offset, offset)) < 0)
    return r;
  while (pos < stop) {
    const uint64_t left = stop - pos;
    const uint64_t n = left < s->limits.maximum_zero
      ? left : s->limits.maximum_zero;
    struct block_lock l;

    whole_begin (s, &l, n, pos);
    r = store_zero (s->inner, n, pos, flags);
    whole_end (s, &l);
    if (r == -ENOTSUP && !(flags & STORE_ZERO_FAST))
      break;
    if (r < 0)
      return r;
    pos += n;
  }
  return write_zeros (store, end - pos, pos);
}

static int
blocks_discard (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_blocks *s = (struct store_blocks *) store;
  uint64_t pos, stop;
  int r = -ENOTSUP;

  count = within (s, offset, count);
  if (count == 0)
    return 0;
  /* Only whole blocks. */
  pos = (offset + mask_of (s)) & ~mask_of (s);
  stop = (offset + count) & ~mask_of (s);
  while (pos < stop) {
    const uint64_t left = stop - pos;
    const uint64_t n = left < s->limits.maximum_zero
      ? left : s->limits.maximum_zero;
    struct block_lock l;

    whole_begin (s, &l, n, pos);
    r = store_discard (s->inner, n, pos);
    whole_end (s, &l);
    if (r < 0)
      break;
    pos += n;
  }
  return r;
}

static int
blocks_flush (struct store *store)
{
  return store_flush (((struct store_blocks *) store)->inner);
}

static int
blocks_resize (struct store *store, uint64_t size)
{
  (void) store, (void) size;
  return -ENOTSUP;
}

static void
blocks_close (struct store *store)
{
  store_close (((struct store_blocks *) store)->inner);
  free (store);
}

static const struct store_ops blocks_ops = {
  .pread = blocks_pread,
  .get_size = blocks_get_size,
  .refresh_size = blocks_refresh_size,
  .extent = blocks_extent,
  .cache = blocks_cache,
  .pwrite = blocks_pwrite,
  .zero = blocks_zero,
  .discard = blocks_discard,
  .flush = blocks_flush,
  .resize = blocks_resize,
  .close = blocks_close,
};

struct store *
store_blocks_new (struct store *inner, const struct block_limits *limits,
                  struct block_locks *locks)
{
  struct store_blocks *s = calloc (1, sizeof *s);
  uint64_t size;
  int r;

  if (s == NULL) {
    store_close (inner);
    errno = ENOMEM;
    return NULL;
  }
  s->store = (struct store) {
    .ops = &blocks_ops,
    .name = inner->name,
    .fixed_size = inner->fixed_size,
    .readonly = inner->readonly,
  };
  s->inner = inner;
  s->limits = *limits;
  s->own_locks = (struct block_locks) BLOCK_LOCKS_INIT;
  s->locks = locks ? locks : &s->own_locks;
  if ((r = store_get_size (inner, &size)) < 0) {
    blocks_close (&s->store);
    errno = -r;
    return NULL;
  }
  s->size = size;
  return &s->store;
}
