/* qcow2ext: a store over our own descriptor.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "file-system.h"
#include "image-lock.h"
#include "store-error.h"
#include "store-file.h"

/* Zeros are written in pieces of this size. */
#define ZERO_CHUNK (1 << 20)

/* Threads in pwrite at once, on a file system of which the kernel lets one of
 * them write to a file: the others spin and wake each other, and the more there
 * are, the less gets done.  With only one, each would have to be woken to
 * begin.
 */
#define MAX_WRITERS 4

struct store_file {
  struct store store;
  int fd;
  bool block;                   /* a block device */
  uint32_t sector;              /* of a block device, bytes */
  struct file_system fs;        /* of a file */
  bool direct;                  /* past the page cache: see store-direct.c */
  sem_t writers;                /* if fs.one_writer: how many more may be in
                                   pwrite */

  /* Writes, counted where SEEK_DATA does not see the page cache. */
  _Atomic uint64_t begun, ended;
  _Atomic uint64_t flushed;     /* of those that have ended */
  struct report_limit limit;

  /* What the file system was found not to support, so that it is not asked
   * again.
   */
  atomic_bool no_punch, no_zero_range;
};

/* What errno says.  The limit of file sizes, be it the process's or the file
 * system's, is a want of space: what becomes free in the image can be used.
 */
static int
error_of (struct store_file *s)
{
  const int error = errno;

  if (error == EFBIG) {
    report_limited (&s->limit, "%s: the file cannot become any larger: it has "
                    "reached the limit of the process (ulimit -f) or of the "
                    "file system", s->store.name);
    return -ENOSPC;
  }
  if (is_answer_of_ours (error))
    report_limited (&s->limit, "%s: %s", s->store.name, strerror (error));
  return store_error (error);
}

static int
file_get_size (struct store *store, uint64_t *size)
{
  struct store_file *s = (struct store_file *) store;
  /* For a block device, too; and its position means nothing to pread. */
  const off_t r = lseek (s->fd, 0, SEEK_END);

  if (r == -1)
    return error_of (s);
  *size = r;
  return 0;
}

/* Has a read that was short, up to offset, met the end of the file?  Direct I/O
 * cannot go on from within a sector to see.  There may be more by now: the
 * read was before that.
 */
static bool
is_at_end (struct store *store, uint64_t offset)
{
  uint64_t size = 0;

  return ((struct store_file *) store)->direct
    && (offset % 512
        || (file_get_size (store, &size) == 0 && offset >= size));
}

static int
file_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  struct store_file *s = (struct store_file *) store;
  uint8_t *p = buf;

  while (count > 0) {
    const ssize_t r = pread (s->fd, p, count, offset);

    if (r == -1) {
      if (errno == EINTR)
        continue;
      return error_of (s);
    }
    p += r;
    offset += r;
    count -= r;
    if (r == 0 || (count > 0 && is_at_end (store, offset))) {
      memset (p, 0, count);
      return 0;
    }
  }
  return 0;
}

/* Will SEEK_DATA find all data?  Where it does not see the page cache, only if
 * every write has ended and was covered by a flush.
 */
static bool
seek_is_right (const struct store_file *s)
{
  const uint64_t flushed = s->flushed;

  return s->fs.seek_sees_cache || (s->begun == flushed && s->ended == flushed);
}

static int
file_extent (struct store *store, uint64_t offset, uint64_t *end,
             unsigned *type)
{
  const struct store_file *s = (struct store_file *) store;
  off_t r;

  *end = UINT64_MAX;
  *type = EXTENT_DATA;
  if (s->block || !seek_is_right (s))
    return 0;

  r = lseek (s->fd, offset, SEEK_DATA);
  if (r == -1 && errno != ENXIO) /* not supported: all is data */
    return 0;
  if (r == -1 || (uint64_t) r > offset) {
    *type = EXTENT_HOLE | EXTENT_ZERO;
    if (r != -1)                /* ENXIO: only a hole follows */
      *end = r;
    return 0;
  }
  r = lseek (s->fd, offset, SEEK_HOLE);
  if (r != -1 && (uint64_t) r > offset)
    *end = r;                   /* if not, the file is changing: data */
  return 0;
}

static int
file_cache (struct store *store, uint64_t count, uint64_t offset)
{
  return -posix_fadvise (((struct store_file *) store)->fd, offset, count,
                         POSIX_FADV_WILLNEED);
}

static int
pwrite_all (struct store_file *s, const void *buf, size_t count,
            uint64_t offset)
{
  const uint8_t *p = buf;

  while (count > 0) {
    const ssize_t r = pwrite (s->fd, p, count, offset);

    if (r == -1) {
      if (errno == EINTR)
        continue;
      return error_of (s);
    }
    p += r;
    offset += r;
    count -= r;
  }
  return 0;
}

static int
file_pwrite (struct store *store, const void *buf, size_t count,
             uint64_t offset)
{
  struct store_file *s = (struct store_file *) store;
  int r;

  if (!s->block && !s->fs.seek_sees_cache)
    s->begun++;
  if (s->fs.one_writer)
    while (sem_wait (&s->writers) == -1)
      ;                         /* EINTR */
  r = pwrite_all (s, buf, count, offset);
  if (s->fs.one_writer)
    sem_post (&s->writers);
  if (!s->block && !s->fs.seek_sees_cache)
    s->ended++;
  return r;
}

static bool
unsupported (int error)
{
  /* EINVAL: a device or a file system that does not take this range. */
  return error == EOPNOTSUPP || error == ENOSYS || error == ENODEV
    || error == EINVAL;
}

/* Calls fallocate; returns -ENOTSUP, and notes it, if it is not supported. */
static int
try_fallocate (struct store_file *s, int mode, uint64_t count,
               uint64_t offset, atomic_bool *no)
{
  if (*no)
    return -ENOTSUP;
  while (fallocate (s->fd, mode, offset, count) == -1) {
    if (errno == EINTR)
      continue;
    /* Another program has opened the device for itself alone, or a volume
     * group on it is active: zeros can be written all the same.
     */
    if (s->block && errno == EBUSY)
      return -ENOTSUP;
    if (!unsupported (errno))
      return error_of (s);
    if (errno != EINVAL)
      *no = true;
    return -ENOTSUP;
  }
  return 0;
}

static int
punch (struct store_file *s, uint64_t count, uint64_t offset)
{
  return try_fallocate (s, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, count,
                        offset, &s->no_punch);
}

/* Gives a hole its space, where that is possible. */
static int
allocate (struct store_file *s, uint64_t count, uint64_t offset)
{
  atomic_bool no = false;
  const int r = try_fallocate (s, FALLOC_FL_KEEP_SIZE, count, offset, &no);

  return r == -ENOTSUP ? 0 : r;
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
    const int r = file_pwrite (store, zeros, n, offset);

    if (r < 0)
      return r;
    offset += n;
    count -= n;
  }
  return 0;
}

/* Zeroes whole sectors, or any range of a file, without writing zeros. */
static int
zero_natively (struct store_file *s, uint64_t count, uint64_t offset,
               unsigned flags)
{
  int r = -ENOTSUP;

  if (flags & STORE_ZERO_PUNCH)
    r = punch (s, count, offset);
  if (r == -ENOTSUP)
    r = try_fallocate (s, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, count,
                       offset, &s->no_zero_range);
  if (r == -ENOTSUP && !s->block && !(flags & STORE_ZERO_PUNCH)) {
    /* A hole that is filled again keeps its space. */
    r = punch (s, count, offset);
    if (r == 0)
      r = allocate (s, count, offset);
  }
  return r;
}

/* The whole sectors of a range; of a file, all of it.  False: there are
 * none.
 */
static bool
whole_sectors (const struct store_file *s, uint64_t count, uint64_t offset,
               uint64_t *start, uint64_t *stop)
{
  const uint64_t mask = s->block ? s->sector - 1 : 0;

  *start = (offset + mask) & ~mask;
  *stop = (offset + count) & ~mask;
  return *start < *stop;
}

static int
file_zero (struct store *store, uint64_t count, uint64_t offset,
           unsigned flags)
{
  struct store_file *s = (struct store_file *) store;
  uint64_t size = 0, start, stop;
  int r;

  /* What lies behind the end reads as zeros. */
  if ((r = file_get_size (store, &size)) < 0)
    return r;
  if (offset >= size)
    return 0;
  if (count > size - offset)
    count = size - offset;

  r = -ENOTSUP;
  if (whole_sectors (s, count, offset, &start, &stop))
    r = zero_natively (s, stop - start, start, flags);
  if (r == -ENOTSUP && !(flags & STORE_ZERO_FAST))
    return write_zeros (store, count, offset);
  if (r < 0)
    return r;
  /* The two ends are parts of sectors. */
  if ((r = write_zeros (store, start - offset, offset)) < 0)
    return r;
  return write_zeros (store, offset + count - stop, stop);
}

static int
file_discard (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_file *s = (struct store_file *) store;
  uint64_t start, stop;

  if (!whole_sectors (s, count, offset, &start, &stop))
    return -ENOTSUP;
  return punch (s, stop - start, start);
}

static int
file_flush (struct store *store)
{
  struct store_file *s = (struct store_file *) store;
  /* What ends while the flush runs need not be covered by it. */
  const uint64_t covered = s->ended;
  uint64_t flushed = s->flushed;

  while (fdatasync (s->fd) == -1)
    if (errno != EINTR)
      return error_of (s);
  /* Another flush may have begun later and ended earlier. */
  while (flushed < covered
         && !atomic_compare_exchange_weak (&s->flushed, &flushed, covered))
    ;
  return 0;
}

static int
file_resize (struct store *store, uint64_t size)
{
  struct store_file *s = (struct store_file *) store;

  if (s->block)
    return -ENOTSUP;
  while (ftruncate (s->fd, size) == -1)
    if (errno != EINTR)
      return error_of (s);
  return 0;
}

static void
file_close (struct store *store)
{
  struct store_file *s = (struct store_file *) store;

  close (s->fd);
  sem_destroy (&s->writers);
  free (store->name);
  free (store);
}

static const struct store_ops file_ops = {
  .pread = file_pread,
  .get_size = file_get_size,
  .extent = file_extent,
  .cache = file_cache,
  .pwrite = file_pwrite,
  .zero = file_zero,
  .discard = file_discard,
  .flush = file_flush,
  .resize = file_resize,
  .close = file_close,
};

bool
store_file_is_readonly_device (const struct store *store)
{
  const struct store_file *s = (const struct store_file *) store;
  int readonly;

  return s->block && ioctl (s->fd, BLKROGET, &readonly) == 0 && readonly;
}

/* What zeroing and discarding have to keep to; a power of two. */
static uint32_t
sector_of (int fd)
{
  int size;

  return ioctl (fd, BLKSSZGET, &size) == 0 && size > 0 ? size : 512;
}

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
  s->limit = (struct report_limit) REPORT_LIMIT_INIT;
  sem_init (&s->writers, 0, MAX_WRITERS);
  s->block = s->store.fixed_size = S_ISBLK (st.st_mode);
  if (s->block)
    s->sector = sector_of (fd);
  else
    s->fs = file_system_of (fd);
  s->direct = fcntl (fd, F_GETFL) & O_DIRECT;
  s->fs.one_writer &= !s->direct;
  s->store.readonly = (fcntl (fd, F_GETFL) & O_ACCMODE) == O_RDONLY
    || store_file_is_readonly_device (&s->store);
  return &s->store;
}

int
store_file_dup (const struct store *store)
{
  return fcntl (((const struct store_file *) store)->fd, F_DUPFD_CLOEXEC, 0);
}

int
store_file_id (const struct store *store, struct file_id *id)
{
  struct stat st;

  if (fstat (((const struct store_file *) store)->fd, &st) == -1)
    return -errno;
  *id = file_id_of (&st);
  return 0;
}

bool
store_file_is_at (const struct store *store, const char *path)
{
  struct stat st_path;
  struct file_id id, id_path;

  if (stat (path, &st_path) == -1)
    return errno != ENOENT && errno != ENOTDIR; /* nobody knows, then */
  if (store_file_id (store, &id) < 0)
    return false;
  id_path = file_id_of (&st_path);
  return file_id_equal (&id, &id_path);
}
