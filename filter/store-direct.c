/* qcow2ext: a store that goes past the page cache.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Direct I/O takes whole blocks, from and to memory that is aligned.  Other
 * requests are copied, and a block that is written in part is read, changed
 * and written.  That rewrites what lies beside it in the block with what it
 * holds, which on such a device every write does: that a block is written
 * whole or not at all, even if power fails, is the device's promise.
 *
 * A file whose size is no multiple of the block ends within one.  Written as a
 * whole, it would make the file longer.  So that part goes through the page
 * cache, which the kernel keeps in step with direct I/O as long as nobody
 * writes in the same page at the same time.  It is flushed at once: nothing is
 * in the page cache after a change.
 *
 * Every change holds a lock of its range, rounded to whole blocks and pages.
 * Without it, a block that is read and written back would undo what another
 * request has written beside it meanwhile.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "block-lock.h"
#include "bounce.h"
#include "store-direct.h"
#include "store-file.h"

/* Data is copied in pieces of this size. */
#define BOUNCE_MAX (UINT64_C (2) << 20)

struct store_direct {
  struct store store;           /* its name is that of direct */
  struct store *direct, *cached;
  struct direct_limits limits;
  uint64_t granule;             /* of locks: a block or a page */
  struct block_locks locks;
  struct bounce_pool bounces;   /* of BOUNCE_MAX bytes */
};

static void
begin_change (struct store_direct *s, struct block_lock *l, uint64_t count,
              uint64_t offset)
{
  block_lock (&s->locks, l, round_down (offset, s->granule),
              round_up (offset + count, s->granule), true);
}

static void
end_change (struct store_direct *s, struct block_lock *l)
{
  block_unlock (&s->locks, l);
}

static bool
is_aligned (const struct store_direct *s, const void *buf, uint64_t count,
            uint64_t offset)
{
  return ((count | offset) & (s->limits.block - 1)) == 0
    && ((uintptr_t) buf & (s->limits.memory - 1)) == 0;
}

/* How much of a range is copied at a time, with the blocks around it. */
static uint64_t
copied_at_once (const struct store_direct *s, uint64_t count, uint64_t offset)
{
  const uint64_t block = s->limits.block;

  return min64 (round_up (offset + count, block) - round_down (offset, block),
                BOUNCE_MAX);
}

/* Reads any range by way of bounce. */
static int
read_copied (struct store_direct *s, uint8_t *bounce, uint8_t *buf,
             size_t count, uint64_t offset)
{
  const uint64_t block = s->limits.block, end = offset + count;
  const uint64_t size = copied_at_once (s, count, offset);

  while (offset < end) {
    const uint64_t from = round_down (offset, block);
    const uint64_t to = min64 (round_up (end, block), from + size);
    const uint64_t n = min64 (to, end) - offset;
    const int r = store_pread (s->direct, bounce, to - from, from);

    if (r < 0)
      return r;
    memcpy (buf, bounce + (offset - from), n);
    buf += n;
    offset += n;
  }
  return 0;
}

static int
direct_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  struct store_direct *s = (struct store_direct *) store;
  void *bounce;
  int r;

  if (is_aligned (s, buf, count, offset))
    return store_pread (s->direct, buf, count, offset);
  bounce = bounce_take (&s->bounces);
  if (bounce == NULL)
    return -ENOMEM;
  r = read_copied (s, bounce, buf, count, offset);
  bounce_give (&s->bounces, bounce);
  return r;
}

/* Writes a range that lies within size bytes from a block's start, by way of
 * bounce.  The lock is held.
 */
static int
write_copied (struct store_direct *s, uint8_t *bounce, const void *buf,
              size_t count, uint64_t offset)
{
  const uint64_t block = s->limits.block, end = offset + count;
  const uint64_t from = round_down (offset, block);
  const uint64_t to = round_up (end, block);
  int r;

  if (from != offset
      && (r = store_pread (s->direct, bounce, block, from)) < 0)
    return r;
  if (to != end && !(from != offset && to - from == block)
      && (r = store_pread (s->direct, bounce + (to - block - from), block,
                           to - block)) < 0)
    return r;
  memcpy (bounce + (offset - from), buf, count);
  return store_pwrite (s->direct, bounce, to - from, from);
}

/* Writes whole blocks and parts of blocks that lie within the file, or that
 * the file will cover when all is written.  The lock is held.
 */
static int
write_blocks (struct store_direct *s, const uint8_t *buf, size_t count,
              uint64_t offset)
{
  const uint64_t block = s->limits.block, end = offset + count;
  const uint64_t size = copied_at_once (s, count, offset);
  uint8_t *bounce;
  int r = 0;

  if (count == 0)
    return 0;
  if (is_aligned (s, buf, count, offset))
    return store_pwrite (s->direct, buf, count, offset);
  bounce = bounce_take (&s->bounces);
  if (bounce == NULL)
    return -ENOMEM;
  while (r == 0 && offset < end) {
    const uint64_t to = min64 (end, round_down (offset, block) + size);

    r = write_copied (s, bounce, buf, to - offset, offset);
    buf += to - offset;
    offset = to;
  }
  bounce_give (&s->bounces, bounce);
  return r;
}

/* The same for any range: what shares its last block with the end of the file
 * goes through the page cache.
 */
static int
write_locked (struct store_direct *s, const uint8_t *buf, size_t count,
              uint64_t offset)
{
  const uint64_t end = offset + count;
  const uint64_t last = round_down (end, s->limits.block);
  uint64_t size, n = count;
  int r;

  if (last != end) {
    if ((r = store_get_size (s->direct, &size)) < 0)
      return r;
    if (last + s->limits.block > size)
      n = last > offset ? last - offset : 0;
  }
  r = write_blocks (s, buf, n, offset);
  if (r == 0 && n < count
      && (r = store_pwrite (s->cached, buf + n, count - n, offset + n)) == 0)
    r = store_flush (s->cached);
  return r;
}

static int
direct_pwrite (struct store *store, const void *buf, size_t count,
               uint64_t offset)
{
  struct store_direct *s = (struct store_direct *) store;
  struct block_lock l;
  int r;

  begin_change (s, &l, count, offset);
  r = write_locked (s, buf, count, offset);
  end_change (s, &l);
  return r;
}

static int
write_zeros (struct store_direct *s, uint64_t count, uint64_t offset)
{
  const size_t size = min64 (round_up (count, s->limits.block), BOUNCE_MAX);
  void *zeros;
  int r = 0;

  if (count == 0)
    return 0;
  zeros = bounce_take (&s->bounces);
  if (zeros == NULL)
    return -ENOMEM;
  memset (zeros, 0, size);
  for (uint64_t n; r == 0 && count > 0; count -= n, offset += n) {
    n = min64 (count, size);
    r = write_locked (s, zeros, n, offset);
  }
  bounce_give (&s->bounces, zeros);
  return r;
}

/* Only whole pages and blocks are zeroed by the file system: for a part of
 * one, it uses the page cache.
 */
static int
zero_locked (struct store_direct *s, uint64_t count, uint64_t offset,
             unsigned flags)
{
  const uint64_t end = offset + count;
  const uint64_t from = min64 (round_up (offset, s->granule), end);
  const uint64_t to = round_down (end, s->granule) > from
    ? round_down (end, s->granule) : from;
  int r = -ENOTSUP;

  if ((flags & STORE_ZERO_FAST) && (from != offset || to != end))
    return -ENOTSUP;
  if (to > from)
    r = store_zero (s->direct, to - from, from, flags | STORE_ZERO_FAST);
  if (r == -ENOTSUP && !(flags & STORE_ZERO_FAST))
    return write_zeros (s, count, offset);
  if (r == 0)
    r = write_zeros (s, from - offset, offset);
  if (r == 0)
    r = write_zeros (s, end - to, to);
  return r;
}

static int
direct_zero (struct store *store, uint64_t count, uint64_t offset,
             unsigned flags)
{
  struct store_direct *s = (struct store_direct *) store;
  struct block_lock l;
  uint64_t size;
  int r;

  begin_change (s, &l, count, offset);
  /* What lies behind the end reads as zeros. */
  r = store_get_size (s->direct, &size);
  if (r == 0 && offset < size)
    r = zero_locked (s, min64 (count, size - offset), offset, flags);
  end_change (s, &l);
  return r;
}

static int
direct_discard (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_direct *s = (struct store_direct *) store;
  struct block_lock l;
  int r;

  begin_change (s, &l, count, offset);
  r = store_discard (s->direct, count, offset);
  end_change (s, &l);
  return r;
}

static int
direct_get_size (struct store *store, uint64_t *size)
{
  return store_get_size (((struct store_direct *) store)->direct, size);
}

static int
direct_extent (struct store *store, uint64_t offset, uint64_t *end,
               unsigned *type)
{
  return store_extent (((struct store_direct *) store)->direct, offset, end,
                       type);
}

/* There is no cache that reading ahead would fill. */
static int
direct_cache (struct store *store, uint64_t count, uint64_t offset)
{
  (void) store, (void) count, (void) offset;
  return 0;
}

/* Both lead to the same file, and one flush is for all of it. */
static int
direct_flush (struct store *store)
{
  return store_flush (((struct store_direct *) store)->direct);
}

static int
direct_resize (struct store *store, uint64_t size)
{
  return store_resize (((struct store_direct *) store)->direct, size);
}

static void
direct_close (struct store *store)
{
  struct store_direct *s = (struct store_direct *) store;

  pthread_mutex_destroy (&s->locks.mutex);
  bounce_pool_destroy (&s->bounces);
  store_close (s->cached);
  store_close (s->direct);
  free (s);
}

static const struct store_ops direct_ops = {
  .pread = direct_pread,
  .get_size = direct_get_size,
  .extent = direct_extent,
  .cache = direct_cache,
  .pwrite = direct_pwrite,
  .zero = direct_zero,
  .discard = direct_discard,
  .flush = direct_flush,
  .resize = direct_resize,
  .close = direct_close,
};

struct store *
store_direct_new (struct store *direct, struct store *cached,
                  const struct direct_limits *limits)
{
  const uint64_t page = sysconf (_SC_PAGESIZE);
  struct store_direct *s = calloc (1, sizeof *s);

  if (s == NULL) {
    store_close (cached);
    store_close (direct);
    errno = ENOMEM;
    return NULL;
  }
  s->store = (struct store) {
    .ops = &direct_ops,
    .name = direct->name,
    .fixed_size = direct->fixed_size,
    .readonly = direct->readonly,
  };
  s->direct = direct;
  s->cached = cached;
  s->limits = *limits;
  if (s->limits.block < 512)
    s->limits.block = 512;
  /* So that a block within a bounce is aligned, too. */
  if (s->limits.block < limits->memory)
    s->limits.block = limits->memory;
  s->granule = s->limits.block > page ? s->limits.block : page;
  pthread_mutex_init (&s->locks.mutex, NULL);
  bounce_pool_init (&s->bounces, BOUNCE_MAX, s->limits.block);
  return &s->store;
}

struct store *
store_direct_file (struct store *store)
{
  return store->ops == &direct_ops ? ((struct store_direct *) store)->direct
                                   : store;
}

/* Opens the file behind a descriptor again, for the page cache.  There is no
 * lease to wait for: nobody can take one while a file is open for writing.
 */
static struct store *
open_cached (int fd, const char *name)
{
  char link[64];
  int again;

  snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
  again = open (link, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  return again == -1 ? NULL : store_file_new (again, name);
}

struct store *
store_direct_open (int fd, const char *name)
{
  const int flags = fcntl (fd, F_GETFL);
  const bool writable = (flags & O_ACCMODE) != O_RDONLY;
  struct store *direct, *cached = NULL;
  struct direct_limits limits;
  int saved_errno;

  if ((writable && (cached = open_cached (fd, name)) == NULL)
      || fcntl (fd, F_SETFL, flags | O_DIRECT) == -1
      || direct_limits_find (fd, &limits) == -1) {
    saved_errno = errno;
    store_close (cached);
    close (fd);
    errno = saved_errno;
    return NULL;
  }
  direct = store_file_new (fd, name);
  if (direct == NULL) {
    saved_errno = errno;
    store_close (cached);
    errno = saved_errno;
    return NULL;
  }
  return store_direct_new (direct, cached, &limits);
}
