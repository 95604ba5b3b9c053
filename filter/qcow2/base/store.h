/* qcow2ext: the seam between the engine and whatever holds the bytes.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A store is a flat, random-access sequence of bytes: the layer below us in
 * nbdkit, a file, a block device, memory in the tests.  The engine owns no
 * descriptor and knows no path; it calls this table.
 *
 * Every function may be called by many threads at once.  Functions return 0,
 * or a negative errno.  Offsets and counts are in bytes; an offset plus count
 * never exceeds INT64_MAX.
 */

#ifndef QCOW2_STORE_H
#define QCOW2_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;

/* Extent types; the values are those of NBD's base:allocation. */
#define EXTENT_DATA 0
#define EXTENT_HOLE 1
#define EXTENT_ZERO 2

/* Receives extents in ascending order without gaps, in bytes.  Returning
 * non-zero stops the walk, which then returns that value.
 */
typedef int (*extent_fn) (void *opaque, uint64_t offset, uint64_t length,
                          unsigned type);

struct store_ops {
  /* Reads count bytes; those past the store's end read as zeros. */
  int (*pread) (struct store *, void *buf, size_t count, uint64_t offset);

  /* The store's size in bytes as it is now. */
  int (*get_size) (struct store *, uint64_t *size);

  /* The same for a store that keeps the size that it had when it was opened:
   * looks whether it has become larger, and lets requests go up to there from
   * now on.  NULL: get_size does.
   */
  int (*refresh_size) (struct store *, uint64_t *size);

  /* Tells whether the byte at offset is in a hole that reads as zeros, and
   * where the run of bytes ends of which the same is true: *end > offset,
   * which may be far away.  What lies past the store's end is a hole without
   * end; a store that does not know says EXTENT_DATA, UINT64_MAX.
   */
  int (*extent) (struct store *, uint64_t offset, uint64_t *end,
                 unsigned *type);

  /* Hints that the range will be read soon.  Failure means nothing. */
  int (*cache) (struct store *, uint64_t count, uint64_t offset);

  /* Writes count bytes.  A store that can grow does so. */
  int (*pwrite) (struct store *, const void *buf, size_t count,
                 uint64_t offset);

  /* Makes the range read as zeros; flags are STORE_ZERO_*. */
  int (*zero) (struct store *, uint64_t count, uint64_t offset,
               unsigned flags);

  /* Gives what it can of the range back to whoever lent it: that reads as
   * zeros then, and the rest (parts of blocks) as before.  Never writes zeros
   * instead.  -ENOTSUP, with nothing changed, if nothing can be given back.
   */
  int (*discard) (struct store *, uint64_t count, uint64_t offset);

  /* Makes all that has been written durable. */
  int (*flush) (struct store *);

  /* Sets the size; what is gained reads as zeros.  -ENOTSUP: cannot. */
  int (*resize) (struct store *, uint64_t size);

  /* Releases the store and everything it holds. */
  void (*close) (struct store *);
};

/* What is asked of zero: that space may be given back; that it fails with
 * -ENOTSUP, with nothing changed, where it would have to write zeros.
 */
#define STORE_ZERO_PUNCH 1
#define STORE_ZERO_FAST 2

struct store {
  const struct store_ops *ops;
  char *name;                   /* for messages; owned by the store */
  bool fixed_size;              /* a block device: it never grows */
  bool readonly;                /* writing fails */
  bool far;                     /* a request may take much longer than it does
                                   for a file, so that it pays to read ahead
                                   and several parts at once */
  uint64_t content;             /* stands for what is in it: stores of which it
                                   is the same hold the same, and nothing
                                   changes that while they are open; 0: for
                                   this one there is no such number */
  bool encrypted;               /* what was never written reads as noise and
                                   not as zeros; zero writes, and is never
                                   fast */
};

static inline int
store_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  return s->ops->pread (s, buf, count, offset);
}

static inline int
store_get_size (struct store *s, uint64_t *size)
{
  return s->ops->get_size (s, size);
}

static inline int
store_refresh_size (struct store *s, uint64_t *size)
{
  return s->ops->refresh_size ? s->ops->refresh_size (s, size)
                              : s->ops->get_size (s, size);
}

static inline int
store_extent (struct store *s, uint64_t offset, uint64_t *end,
              unsigned *type)
{
  return s->ops->extent (s, offset, end, type);
}

static inline int
store_cache (struct store *s, uint64_t count, uint64_t offset)
{
  return s->ops->cache (s, count, offset);
}

static inline int
store_pwrite (struct store *s, const void *buf, size_t count,
              uint64_t offset)
{
  return s->ops->pwrite (s, buf, count, offset);
}

static inline int
store_zero (struct store *s, uint64_t count, uint64_t offset, unsigned flags)
{
  return s->ops->zero (s, count, offset, flags);
}

static inline int
store_discard (struct store *s, uint64_t count, uint64_t offset)
{
  return s->ops->discard (s, count, offset);
}

static inline int
store_flush (struct store *s)
{
  return s->ops->flush (s);
}

static inline int
store_resize (struct store *s, uint64_t size)
{
  return s->ops->resize (s, size);
}

static inline void
store_close (struct store *s)
{
  if (s)
    s->ops->close (s);
}

#endif /* QCOW2_STORE_H */
