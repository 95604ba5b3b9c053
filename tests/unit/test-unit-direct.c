/* qcow2ext: direct I/O of any range.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A file in memory that takes only aligned requests by one way, and anything
 * by the other.  Random requests must do what they do to plain memory, size
 * included.  Then threads that write side by side, in the same blocks, must
 * not undo what the others wrote: reading, here, takes long enough for that.
 * What the kernel says that direct I/O demands is believed only if it can be.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "direct-limits.h"
#include "store-direct.h"
#include "store-file.h"

#define ROOM (64 << 10)
#define SEED 20251126

#define CHECK(x)                                                        \
  do {                                                                  \
    if (!(x)) {                                                         \
      fprintf (stderr, "%s:%d: not true: %s (seed %d)\n", __FILE__,     \
               __LINE__, #x, SEED);                                     \
      exit (EXIT_FAILURE);                                              \
    }                                                                   \
  } while (0)

/* What both ways lead to. */
static struct {
  pthread_mutex_t lock;
  uint8_t data[ROOM];
  uint64_t size;
  unsigned flushes, writes;
  const void *last_buf;         /* that was read to, or written from */
  bool can_zero;                /* the file system can zero a range */
  bool slow;                    /* others run while something is read */
} file = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct way {
  struct store store;
  uint32_t block, memory;       /* what requests must keep to */
};

static void
check_request (const struct store *store, const void *buf, uint64_t count,
               uint64_t offset)
{
  const struct way *w = (const struct way *) store;

  CHECK (offset % w->block == 0 && count % w->block == 0);
  CHECK ((uintptr_t) buf % w->memory == 0);
  CHECK (offset + count <= ROOM);
}

static int
way_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  check_request (store, buf, count, offset);
  {
    LOCK_FOR_SCOPE (&file.lock);
    file.last_buf = buf;
    memset (buf, 0, count);
    if (offset < file.size)
      memcpy (buf, file.data + offset,
              count < file.size - offset ? count : file.size - offset);
  }
  if (file.slow)
    nanosleep (&(struct timespec) { .tv_nsec = 1000 }, NULL);
  return 0;
}

static int
way_pwrite (struct store *store, const void *buf, size_t count,
            uint64_t offset)
{
  check_request (store, buf, count, offset);
  CHECK (count > 0);
  LOCK_FOR_SCOPE (&file.lock);
  file.writes++;
  file.last_buf = buf;
  memcpy (file.data + offset, buf, count);
  if (file.size < offset + count)
    file.size = offset + count;
  return 0;
}

static int
way_get_size (struct store *store, uint64_t *size)
{
  (void) store;
  LOCK_FOR_SCOPE (&file.lock);
  *size = file.size;
  return 0;
}

static int
way_zero (struct store *store, uint64_t count, uint64_t offset,
          unsigned flags)
{
  check_request (store, NULL, count, offset);
  CHECK (flags & STORE_ZERO_FAST); /* it could not write zeros itself */
  if (!file.can_zero)
    return -ENOTSUP;
  LOCK_FOR_SCOPE (&file.lock);
  CHECK (offset + count <= file.size);
  memset (file.data + offset, 0, count);
  return 0;
}

static int
way_discard (struct store *store, uint64_t count, uint64_t offset)
{
  (void) store;
  LOCK_FOR_SCOPE (&file.lock);
  memset (file.data + offset, 0, count);
  return 0;
}

static int
way_flush (struct store *store)
{
  (void) store;
  file.flushes++;
  return 0;
}

static void
way_close (struct store *store)
{
  free (store);
}

static const struct store_ops way_ops = {
  .pread = way_pread, .pwrite = way_pwrite, .get_size = way_get_size,
  .zero = way_zero, .discard = way_discard, .flush = way_flush,
  .close = way_close,
};

static struct store *
way_new (uint32_t block, uint32_t memory)
{
  struct way *w = calloc (1, sizeof *w);

  CHECK (w);
  *w = (struct way) {
    .store.ops = &way_ops, .block = block, .memory = memory,
  };
  return &w->store;
}

static struct store *
direct_new (uint32_t block, uint32_t memory)
{
  const struct direct_limits limits = { .block = block, .memory = memory };
  struct store *store;

  store = store_direct_new (way_new (block, memory), way_new (1, 1), &limits);
  CHECK (store);
  return store;
}

/* What store_direct_open opens once more. */
static int opened_fd;
static unsigned opened_again;

struct store *
store_file_new (int fd, const char *name)
{
  (void) name;
  opened_again += fd != opened_fd;
  close (fd);
  return way_new (1, 1);
}

static void
fill_random (uint8_t *p, size_t n)
{
  for (size_t i = 0; i < n; i++)
    p[i] = random ();
}

/* Ranges small and large, many of them at the edges of blocks. */
static void
random_range (size_t limit, size_t *count, size_t *offset)
{
  const unsigned block = 512U << random () % 4;

  *offset = random () % limit;
  if (random () % 2)
    *offset -= *offset % block;
  *count = 1 + random () % (random () % 4 ? 3 * block : limit);
  if (random () % 2 && *count > block)
    *count -= *count % block;
  if (*count > limit - *offset)
    *count = limit - *offset;
}

static void
test_like_memory (uint32_t block, uint32_t memory)
{
  static uint8_t model[ROOM], buf[ROOM + 64];
  struct store *store = direct_new (block, memory);
  uint64_t model_size = 0, size;

  memset (model, 0, sizeof model);
  memset (file.data, 0, ROOM);
  file.size = 0;
  for (unsigned n = 0; n < 4000; n++) {
    uint8_t *p = buf + (random () % 2 ? random () % 64 : 0);
    size_t count, offset;

    file.can_zero = random () % 2;
    random_range (ROOM * (n / 1000 + 1) / 4 - 4096, &count, &offset);
    switch (random () % 6) {
    case 0:
    case 1:
      fill_random (p, count);
      CHECK (store_pwrite (store, p, count, offset) == 0);
      memcpy (model + offset, p, count);
      if (model_size < offset + count)
        model_size = offset + count;
      break;
    case 2:
      {
        const unsigned flags = random () % 2 ? STORE_ZERO_FAST : 0;
        const unsigned writes = file.writes;
        const int r = store_zero (store, count, offset, flags);

        CHECK (r == 0 || (r == -ENOTSUP && flags));
        CHECK (file.writes == writes || !flags);
        if (r == 0)
          memset (model + offset, 0, count);
        break;
      }
    case 3:
      CHECK (store_discard (store, count, offset) == 0);
      memset (model + offset, 0, count);
      break;
    default:
      CHECK (store_pread (store, p, count, offset) == 0);
      CHECK (memcmp (p, model + offset, count) == 0);
    }
    CHECK (store_get_size (store, &size) == 0 && size == model_size);
    CHECK (memcmp (file.data, model, size) == 0);
  }
  CHECK (store_flush (store) == 0 && file.flushes > 0);
  store_close (store);
}

/* A request that direct I/O can take as it is is not copied. */
static void
test_not_copied (uint32_t block, uint32_t memory)
{
  static uint8_t room[ROOM + 4096];
  uint8_t *buf = room + (-(uintptr_t) room & (2 * memory - 1)) + memory;
  struct store *store = direct_new (block, memory);

  CHECK (store_pwrite (store, buf, 2 * block, block) == 0);
  CHECK (file.last_buf == buf);
  CHECK (store_pread (store, buf, 2 * block, block) == 0);
  CHECK (file.last_buf == buf);
  store_close (store);
}

#define THREADS 4
#define PIECE 100
#define ROUNDS 5

struct neighbour {
  pthread_t thread;
  struct store *store;
  unsigned id;
};

/* Every THREADS-th piece is this thread's. */
static void *
write_pieces (void *opaque)
{
  const struct neighbour *me = opaque;
  uint8_t piece[PIECE];

  for (uint8_t round = 1; round <= ROUNDS; round++)
    for (size_t p = me->id; p < ROOM / 8 / PIECE; p += THREADS) {
      memset (piece, me->id * 50 + round, PIECE);
      CHECK (store_pwrite (me->store, piece, PIECE, p * PIECE) == 0);
    }
  return NULL;
}

static void
test_neighbours (uint32_t block)
{
  struct neighbour n[THREADS];
  struct store *store = direct_new (block, 512);

  memset (file.data, 0, ROOM);
  file.size = 0;
  for (unsigned i = 0; i < THREADS; i++) {
    n[i] = (struct neighbour) { .store = store, .id = i };
    CHECK (pthread_create (&n[i].thread, NULL, write_pieces, &n[i]) == 0);
  }
  for (unsigned i = 0; i < THREADS; i++)
    pthread_join (n[i].thread, NULL);
  CHECK (file.size == ROOM / 8 / PIECE * PIECE);
  for (size_t i = 0; i < file.size; i++)
    CHECK (file.data[i] == i / PIECE % THREADS * 50 + ROUNDS);
  store_close (store);
}

#ifdef STATX_DIOALIGN
static struct statx answer;

int __wrap_statx (int fd, const char *path, int flags, unsigned mask,
                  struct statx *stx);

int
__wrap_statx (int fd, const char *path, int flags, unsigned mask,
              struct statx *stx)
{
  (void) fd, (void) path, (void) flags;
  CHECK (mask & STATX_DIOALIGN);
  *stx = answer;
  return 0;
}

static bool
are_limits (uint32_t block, uint32_t memory)
{
  struct direct_limits limits;
  int r;

  answer.stx_mask = STATX_DIOALIGN;
  answer.stx_dio_offset_align = block;
  answer.stx_dio_mem_align = memory;
  if ((r = direct_limits_find (-1, &limits)) != 0) {
    CHECK (r == -1 && errno == EINVAL);
    return false;
  }
  CHECK (limits.block == block && limits.memory == memory);
  return true;
}

/* Zero says that there is no direct I/O. */
static void
test_limits (void)
{
  static const uint32_t wrong[] = { 0, 3, 520, 65536 + 512, 131072 };

  for (uint32_t n = 1; n <= 65536; n *= 2)
    CHECK (are_limits (n, 512) && are_limits (512, n));
  for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
    CHECK (!are_limits (wrong[i], 512) && !are_limits (512, wrong[i]));
}
#endif

/* Where nothing says what is demanded, reading tells. */
static unsigned demanded, probes;
static int probe_error = EINVAL; /* of what is not aligned */

ssize_t __wrap_pread (int fd, void *buf, size_t count, off_t offset);
ssize_t __wrap_pread64 (int fd, void *buf, size_t count, off_t offset);

ssize_t
__wrap_pread (int fd, void *buf, size_t count, off_t offset)
{
  (void) fd, (void) buf;
  probes++;
  if (count % demanded == 0 && offset % demanded == 0
      && (uintptr_t) buf % demanded == 0)
    return 0;
  errno = probe_error;
  return -1;
}

ssize_t
__wrap_pread64 (int fd, void *buf, size_t count, off_t offset)
{
  return __wrap_pread (fd, buf, count, offset);
}

static void
test_probe (void)
{
  struct direct_limits limits;
  FILE *f = tmpfile ();
  int r, ends[2];

  CHECK (f && ftruncate (fileno (f), 65536) == 0);
#ifdef STATX_DIOALIGN
  answer.stx_mask = 0;
#endif
  for (demanded = 512; demanded <= 8192; demanded *= 2) {
    r = direct_limits_find (fileno (f), &limits);
    CHECK (demanded > 4096 ? r == -1 && errno == EINVAL
                           : r == 0 && limits.block == demanded
                             && limits.memory == demanded);
    if (probes == 0)            /* the compiler has put another call there: to
                                   the page cache, which demands the least */
      break;
  }
  /* What cannot be read at all, or has no size, has no limits, and says why.
   */
  probe_error = EIO;
  demanded = 8192;
  CHECK (probes == 0 || (direct_limits_find (fileno (f), &limits) == -1
                         && errno == EIO));
  CHECK (pipe (ends) == 0);
  CHECK (direct_limits_find (ends[0], &limits) == -1 && errno == ESPIPE);
  close (ends[0]);
  close (ends[1]);
  fclose (f);
}

/* Only what is written goes by the page cache, too.  Whether the file system
 * takes O_DIRECT is all the same.
 */
static void
test_open (void)
{
  for (unsigned writable = 0; writable < 2; writable++) {
    struct store *store;

    opened_again = 0;
    opened_fd = open ("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (writable) {
      FILE *f = tmpfile ();

      CHECK (f && dup2 (fileno (f), opened_fd) == opened_fd);
      fclose (f);
    }
    store = store_direct_open (opened_fd, "file");
    CHECK (opened_again == writable);
    CHECK (close (opened_fd) == -1 && errno == EBADF);
    store_close (store);
  }
}

int
main (void)
{
  srandom (SEED);
  for (uint32_t block = 512; block <= 8192; block *= 2) {
    test_like_memory (block, 4);
    test_like_memory (block, 4096);
    test_not_copied (block, 4);
    test_not_copied (block, 512);
  }
  test_like_memory (1, 4);      /* a limit that is less than a sector */
  file.slow = true;
  test_neighbours (512);
  test_neighbours (4096);
#ifdef STATX_DIOALIGN
  test_limits ();
#endif
  test_probe ();
  test_open ();
  return EXIT_SUCCESS;
}
