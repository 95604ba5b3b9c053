/* qcow2ext: a store over one that holds ciphertext.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Data is encrypted in sectors of 512 bytes.  When one byte of a sector
 * changes, others in it change with it on disk: a part of a sector cannot be
 * written by itself, and nobody may read a sector while it is being written,
 * not even its other bytes.  So each request holds the sectors that it touches
 * in a lock (block-lock.h), which readers share.
 *
 * A request that begins or ends within a sector is extended to whole ones in a
 * buffer: when reading, that sector is read apart; when writing, it is read,
 * changed and written, all under the lock.
 *
 * Zeros are written like anything else.  A hole in the store below is no
 * zeros here, so that extents say data.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block-lock.h"
#include "store-crypt.h"

/* What is written at once, at most. */
#define CHUNK (1 << 20)

#define SECTOR LUKS_SECTOR_SIZE
#define MASK ((uint64_t) SECTOR - 1)

struct store_crypt {
  struct store store;           /* its name is that of inner */
  struct store *inner;
  struct cipher *cipher;
  struct block_locks locks;
};

static uint64_t
round_up (uint64_t n)
{
  return (n + MASK) & ~MASK;
}

/* Whole sectors. */
static int
read_sectors (struct store_crypt *s, void *buf, size_t count, uint64_t offset)
{
  int r = store_pread (s->inner, buf, count, offset);

  if (r < 0)
    return r;
  return cipher_decrypt (s->cipher, buf, buf, count, offset / SECTOR);
}

/* A part of one sector. */
static int
read_part (struct store_crypt *s, void *buf, size_t count, uint64_t offset)
{
  uint8_t sector[SECTOR];
  int r = read_sectors (s, sector, SECTOR, offset & ~MASK);

  if (r == 0)
    memcpy (buf, sector + (offset & MASK), count);
  return r;
}

/* How much of a range is not in whole sectors at its beginning. */
static size_t
head_of (size_t count, uint64_t offset)
{
  const size_t n = -offset & MASK;

  return n < count ? n : count;
}

static int
read_locked (struct store_crypt *s, uint8_t *buf, size_t count,
             uint64_t offset)
{
  const size_t head = head_of (count, offset);
  const size_t whole = (count - head) & ~MASK;
  const size_t tail = count - head - whole;
  int r = 0;

  if (head)
    r = read_part (s, buf, head, offset);
  if (r == 0 && whole)
    r = read_sectors (s, buf + head, whole, offset + head);
  if (r == 0 && tail)
    r = read_part (s, buf + head + whole, tail, offset + head + whole);
  return r;
}

static int
crypt_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  struct store_crypt *s = (struct store_crypt *) store;
  struct block_lock l;
  int r;

  block_lock (&s->locks, &l, offset & ~MASK, round_up (offset + count), false);
  r = read_locked (s, buf, count, offset);
  block_unlock (&s->locks, &l);
  return r;
}

/* Encrypts and writes a range that buf is a copy of, with room for the
 * sectors at both ends: buf[0] belongs to the beginning of a sector.
 */
static int
write_chunk (struct store_crypt *s, uint8_t *buf, size_t count,
             uint64_t offset)
{
  const uint64_t start = offset & ~MASK, end = offset + count;
  const size_t size = round_up (end) - start;
  int r = 0;

  if (offset & MASK)
    r = read_part (s, buf, offset & MASK, start);
  if (r == 0 && (end & MASK))
    r = read_part (s, buf + (end - start), -end & MASK, end);
  if (r == 0)
    r = cipher_encrypt (s->cipher, buf, buf, size, start / SECTOR);
  if (r == 0)
    r = store_pwrite (s->inner, buf, size, start);
  return r;
}

/* Writes data, or zeros where that is NULL. */
static int
write_range (struct store_crypt *s, const uint8_t *data, uint64_t count,
             uint64_t offset)
{
  const size_t room = count < CHUNK ? round_up (count) + SECTOR : CHUNK;
  CLEANUP_FREE uint8_t *buf = malloc (room);
  int r = 0;

  if (buf == NULL)
    return -ENOMEM;
  while (r == 0 && count > 0) {
    const size_t before = offset & MASK;
    const size_t n = count < room - before ? count : room - before;
    struct block_lock l;

    if (data) {
      memcpy (buf + before, data, n);
      data += n;
    }
    else
      memset (buf + before, 0, n);
    block_lock (&s->locks, &l, offset & ~MASK, round_up (offset + n), true);
    r = write_chunk (s, buf, n, offset);
    block_unlock (&s->locks, &l);
    offset += n;
    count -= n;
  }
  return r;
}

static int
crypt_pwrite (struct store *store, const void *buf, size_t count,
              uint64_t offset)
{
  return write_range ((struct store_crypt *) store, buf, count, offset);
}

static int
crypt_zero (struct store *store, uint64_t count, uint64_t offset,
            unsigned flags)
{
  if (flags & STORE_ZERO_FAST)
    return -ENOTSUP;
  return write_range ((struct store_crypt *) store, NULL, count, offset);
}

/* There is nothing to tell: all of it may be ciphertext. */
static int
crypt_extent (struct store *store, uint64_t offset, uint64_t *end,
              unsigned *type)
{
  (void) store, (void) offset;
  *end = UINT64_MAX;
  *type = EXTENT_DATA;
  return 0;
}

static int
crypt_cache (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_crypt *s = (struct store_crypt *) store;
  const uint64_t start = offset & ~MASK;

  return store_cache (s->inner, round_up (offset + count) - start, start);
}

static int
crypt_get_size (struct store *store, uint64_t *size)
{
  return store_get_size (((struct store_crypt *) store)->inner, size);
}

/* What is given back would not read as zeros. */
static int
crypt_discard (struct store *store, uint64_t count, uint64_t offset)
{
  (void) store, (void) count, (void) offset;
  return -ENOTSUP;
}

static int
crypt_flush (struct store *store)
{
  return store_flush (((struct store_crypt *) store)->inner);
}

static int
crypt_resize (struct store *store, uint64_t size)
{
  return store_resize (((struct store_crypt *) store)->inner, size);
}

static void
crypt_close (struct store *store)
{
  struct store_crypt *s = (struct store_crypt *) store;

  cipher_free (s->cipher);
  free (s);
}

static const struct store_ops crypt_ops = {
  .pread = crypt_pread,
  .get_size = crypt_get_size,
  .extent = crypt_extent,
  .cache = crypt_cache,
  .pwrite = crypt_pwrite,
  .zero = crypt_zero,
  .discard = crypt_discard,
  .flush = crypt_flush,
  .resize = crypt_resize,
  .close = crypt_close,
};

struct store *
store_crypt_new (struct store *inner, struct cipher *cipher)
{
  struct store_crypt *s = calloc (1, sizeof *s);

  if (s == NULL) {
    cipher_free (cipher);
    errno = ENOMEM;
    return NULL;
  }
  s->store = (struct store) {
    .ops = &crypt_ops,
    .name = inner->name,
    .fixed_size = inner->fixed_size,
    .readonly = inner->readonly,
    .encrypted = true,
  };
  s->inner = inner;
  s->cipher = cipher;
  s->locks = (struct block_locks) BLOCK_LOCKS_INIT;
  return &s->store;
}
