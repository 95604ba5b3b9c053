/* qcow2ext: a store over our own descriptor.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store-file.h"

struct store_file {
  struct store store;
  int fd;
  bool block;                   /* a block device */
};

static int
file_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  const int fd = ((struct store_file *) store)->fd;
  uint8_t *p = buf;

  while (count > 0) {
    const ssize_t r = pread (fd, p, count, offset);

    if (r == -1) {
      if (errno == EINTR)
        continue;
      return -errno;
    }
    if (r == 0) {               /* the end of the file */
      memset (p, 0, count);
      return 0;
    }
    p += r;
    offset += r;
    count -= r;
  }
  return 0;
}

static int
file_get_size (struct store *store, uint64_t *size)
{
  /* For a block device, too; and its position means nothing to pread. */
  const off_t r = lseek (((struct store_file *) store)->fd, 0, SEEK_END);

  if (r == -1)
    return -errno;
  *size = r;
  return 0;
}

/* Where the next data begins at or after offset, or "end". */
static uint64_t
seek_data (int fd, uint64_t offset, uint64_t end)
{
  const off_t r = lseek (fd, offset, SEEK_DATA);

  if (r == -1)                  /* ENXIO: only a hole follows */
    return errno == ENXIO ? end : offset;
  return (uint64_t) r < end ? (uint64_t) r : end;
}

/* Where the next hole begins at or after offset, or "end". */
static uint64_t
seek_hole (int fd, uint64_t offset, uint64_t end)
{
  const off_t r = lseek (fd, offset, SEEK_HOLE);

  if (r == -1 || (uint64_t) r > end)
    return end;
  return r;
}

static int
file_extents (struct store *store, uint64_t count, uint64_t offset,
              extent_fn fn, void *opaque)
{
  const struct store_file *s = (struct store_file *) store;
  const uint64_t end = offset + count;

  if (s->block)
    return fn (opaque, offset, count, EXTENT_DATA);

  while (offset < end) {
    uint64_t next = seek_data (s->fd, offset, end);
    unsigned type = EXTENT_HOLE | EXTENT_ZERO;
    int r;

    if (next == offset) {
      type = EXTENT_DATA;
      next = seek_hole (s->fd, offset, end);
      /* The file changed between the two questions: it was data. */
      if (next == offset)
        next = end;
    }
    r = fn (opaque, offset, next - offset, type);
    if (r != 0)
      return r;
    offset = next;
  }
  return 0;
}

static int
file_cache (struct store *store, uint64_t count, uint64_t offset)
{
  return -posix_fadvise (((struct store_file *) store)->fd, offset, count,
                         POSIX_FADV_WILLNEED);
}

static void
file_close (struct store *store)
{
  close (((struct store_file *) store)->fd);
  free (store->name);
  free (store);
}

static const struct store_ops file_ops = {
  .pread = file_pread,
  .get_size = file_get_size,
  .extents = file_extents,
  .cache = file_cache,
  .close = file_close,
};

struct store *
store_file_new (int fd, const char *name)
{
  struct store_file *s = calloc (1, sizeof *s);
  struct stat st;

  if (s == NULL || (s->store.name = strdup (name)) == NULL
      || fstat (fd, &st) == -1) {
    const int saved_errno = errno;

    close (fd);
    if (s)
      free (s->store.name);
    free (s);
    errno = saved_errno;
    return NULL;
  }
  s->store.ops = &file_ops;
  s->fd = fd;
  s->block = s->store.fixed_size = S_ISBLK (st.st_mode);
  return &s->store;
}

struct file_id
file_id_of (const struct stat *st)
{
  if (S_ISBLK (st->st_mode))
    return (struct file_id) { .dev = st->st_rdev, .block = true };
  return (struct file_id) { .dev = st->st_dev, .ino = st->st_ino };
}

bool
file_id_equal (const struct file_id *a, const struct file_id *b)
{
  return a->dev == b->dev && a->ino == b->ino && a->block == b->block;
}
