/* qcow2ext: reading ahead of those who read in order.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A store in memory that takes its time, and at which requests can be stopped.
 * What is read in order comes ahead, within the memory given; what is not costs
 * no request more; what was changed meanwhile is never seen as it was.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "chunks.h"
#include "store-ahead.h"
#include "wrap-clock.h"
#include "streams.h"

#define SIZE (UINT64_C (24) << 20)
#define MEMORY (4 << 20)
#define REQUEST (UINT64_C (128) << 10)
#define SEED 20261126

#define CHECK(x)                                                        \
  do {                                                                  \
    if (!(x)) {                                                         \
      fprintf (stderr, "%s:%d: not true: %s (seed %d)\n", __FILE__,     \
               __LINE__, #x, SEED);                                     \
      exit (EXIT_FAILURE);                                              \
    }                                                                   \
  } while (0)

int __wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                           void *(*start) (void *), void *opaque);
int __real_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                           void *(*start) (void *), void *opaque);

static struct {
  struct store store;
  uint8_t data[SIZE];
  pthread_mutex_t lock;         /* guards the rest */
  pthread_cond_t changed;
  unsigned reads;               /* so far */
  unsigned under_way, most;     /* reads; at one time */
  uint64_t bytes;               /* read so far */
  uint64_t bad, bad_end;        /* reading there fails */
  uint64_t gate;                /* a read that begins here or later, on another
                                   thread than the main one, waits */
  unsigned waiting;
  bool opened;                  /* the gate */
  bool slow_write;              /* and writes wait at it, too */
  unsigned haste;               /* how much faster clocks go */
  atomic_uint later;            /* by how much they were put on, in seconds */
  bool no_threads;
} far = {
  .lock = PTHREAD_MUTEX_INITIALIZER,
  .changed = PTHREAD_COND_INITIALIZER,
};
static pthread_t main_thread;

int
wrap_clock_gettime (clockid_t clock, struct timespec *ts)
{
  const int r = real_clock_gettime (clock, ts);
  const uint64_t t = (ts->tv_sec * UINT64_C (1000000000) + ts->tv_nsec)
                     * far.haste;

  ts->tv_sec = t / 1000000000 + far.later;
  ts->tv_nsec = t % 1000000000;
  return r;
}

int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                       void *(*start) (void *), void *opaque)
{
  return far.no_threads ? EAGAIN
                        : __real_pthread_create (thread, attr, start, opaque);
}

/* What is in memory of what was read. */
static atomic_size_t held;

void *__wrap_malloc (size_t size);
void *__real_malloc (size_t size);
void *__wrap_calloc (size_t n, size_t size);
void *__real_calloc (size_t n, size_t size);
void __wrap_free (void *p);
void __real_free (void *p);

void *
__wrap_malloc (size_t size)
{
  void *p = __real_malloc (size);

  held += malloc_usable_size (p);
  return p;
}

void *
__wrap_calloc (size_t n, size_t size)
{
  void *p = __real_calloc (n, size);

  held += malloc_usable_size (p);
  return p;
}

void
__wrap_free (void *p)
{
  /* LeakSanitizer's does not take NULL. */
  if (p != NULL)
    held -= malloc_usable_size (p);
  __real_free (p);
}

/* --- the store that is far away --- */

/* Waits at the gate; under the lock. */
static void
stop (void)
{
  far.waiting++;
  pthread_cond_broadcast (&far.changed);
  while (!far.opened)
    pthread_cond_wait (&far.changed, &far.lock);
}

static int
far_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  bool bad;

  (void) s;
  CHECK (offset + count <= SIZE);
  {
    LOCK_FOR_SCOPE (&far.lock);
    far.reads++;
    far.bytes += count;
    if (++far.under_way > far.most)
      far.most = far.under_way;
    memcpy (buf, far.data + offset, count);
    if (offset >= far.gate && !pthread_equal (pthread_self (), main_thread))
      stop ();
    bad = offset < far.bad_end && far.bad < offset + count;
    if (bad)
      memset (buf, 0, count);
  }
  nanosleep (&(struct timespec) { .tv_nsec = 2000000 }, NULL);
  LOCK_FOR_SCOPE (&far.lock);
  far.under_way--;
  return bad ? -EIO : 0;
}

static int
far_get_size (struct store *s, uint64_t *size)
{
  (void) s;
  *size = SIZE;
  return 0;
}

static int
far_pwrite (struct store *s, const void *buf, size_t count, uint64_t offset)
{
  (void) s;
  LOCK_FOR_SCOPE (&far.lock);
  if (far.slow_write)
    stop ();
  memcpy (far.data + offset, buf, count);
  return 0;
}

static int
far_zero (struct store *s, uint64_t count, uint64_t offset, unsigned flags)
{
  (void) s, (void) flags;
  LOCK_FOR_SCOPE (&far.lock);
  memset (far.data + offset, 0, count);
  return 0;
}

static int
far_discard (struct store *s, uint64_t count, uint64_t offset)
{
  return far_zero (s, count, offset, 0);
}

static void
far_close (struct store *s)
{
  (void) s;
  CHECK (far.under_way == 0);
}

static const struct store_ops far_ops = {
  .pread = far_pread, .get_size = far_get_size, .pwrite = far_pwrite,
  .zero = far_zero, .discard = far_discard, .close = far_close,
};

static struct store *
open_far (bool serial)
{
  far.store = (struct store) { .ops = &far_ops, .name = (char *) "far" };
  for (uint64_t i = 0; i < SIZE; i += 4)
    memcpy (far.data + i, &(uint32_t) { i * 2654435761U }, 4);
  far.reads = far.most = far.waiting = 0;
  far.bytes = far.bad = far.bad_end = 0;
  far.gate = UINT64_MAX;
  far.opened = far.slow_write = false;
  far.haste = 1;
  far.later = 0;
  return store_ahead_new (&far.store, MEMORY, serial);
}

/* Waits until so many reads are stopped at the gate. */
static void
wait_for_gate (unsigned waiting)
{
  LOCK_FOR_SCOPE (&far.lock);
  while (far.waiting < waiting)
    pthread_cond_wait (&far.changed, &far.lock);
}

static void
open_gate (void)
{
  LOCK_FOR_SCOPE (&far.lock);
  far.opened = true;
  pthread_cond_broadcast (&far.changed);
}

static void
check_read (struct store *s, uint64_t count, uint64_t offset)
{
  static uint8_t buf[REQUEST];

  CHECK (store_pread (s, buf, count, offset) == 0);
  CHECK (memcmp (buf, far.data + offset, count) == 0);
}

/* --- tests --- */

static void
test_in_order (bool serial)
{
  struct store *s = open_far (serial);

  for (uint64_t at = 0; at < SIZE; at += REQUEST) {
    check_read (s, REQUEST, at);
    CHECK (held <= MEMORY + (1 << 20));
  }
  CHECK (far.bytes == SIZE);    /* each byte once */
  CHECK (far.reads < SIZE / REQUEST / 2);
  CHECK (serial ? far.most <= 3 : far.most > 2);
  store_close (s);
}

static void
test_not_in_order (void)
{
  struct store *s = open_far (false);

  /* Backwards, and with steps that lead from one to the next only by chance. */
  for (unsigned i = 0; i < 60; i++)
    check_read (s, 4096, (i * UINT64_C (7919) * 4096) % (SIZE - 4096));
  for (unsigned i = 60; i-- > 0;)
    check_read (s, 4096, i * UINT64_C (300) * 1024);
  CHECK (far.reads == 120 && far.bytes == 120 * 4096);
  store_close (s);
}

/* A store that answers at once is as fast without. */
static void
test_quick (void)
{
  struct store *s = open_far (false);

  far.haste = 0;
  for (uint64_t at = 0; at < SIZE; at += REQUEST)
    check_read (s, REQUEST, at);
  CHECK (far.reads == SIZE / REQUEST && far.most == 1);
  store_close (s);
}

/* A narrow path is not filled with what may not be wanted. */
static void
test_narrow (void)
{
  struct store *s = open_far (false);

  far.haste = 600;              /* more than a second for each */
  for (uint64_t at = 0; at < SIZE; at += REQUEST) {
    check_read (s, REQUEST, at);
    CHECK (at < SIZE / 2 || held <= (5 << 18));
  }
  store_close (s);
}

/* What was read ahead of those who do not come does not stay. */
static void
test_memory (void)
{
  struct store *s = open_far (false);

  for (uint64_t i = 0; i < 12; i++)
    for (uint64_t k = 0; k < 4; k++) {
      check_read (s, REQUEST, i * (SIZE / 12) + k * REQUEST);
      CHECK (held <= MEMORY + (1 << 20));
    }
  store_close (s);
  CHECK (held == 0);
}

/* What was ordered before a change, and comes after it, is of no use. */
static void
test_change (int (*change) (struct store *s, uint64_t offset))
{
  struct store *s = open_far (false);
  const uint64_t at = 5 * REQUEST;

  far.gate = 4 * REQUEST;
  for (uint64_t i = 0; i < 4; i++)
    check_read (s, REQUEST, i * REQUEST);
  wait_for_gate (1);            /* has the old data, and has not brought it */
  CHECK (change (s, at) == 0);
  open_gate ();
  for (uint64_t i = 4; i < 20; i++)
    check_read (s, REQUEST, i * REQUEST);
  /* The same where all is there already. */
  CHECK (change (s, 21 * REQUEST) == 0);
  for (uint64_t i = 20; i < 30; i++)
    check_read (s, REQUEST, i * REQUEST);
  store_close (s);
}

static void *
write_one (void *opaque)
{
  CHECK (store_pwrite (opaque, "changed", 7, 6 * REQUEST) == 0);
  return NULL;
}

/* While a change is under way, what is read there may be old afterwards. */
static void
test_during_change (void)
{
  struct store *s = open_far (false);
  pthread_t thread;

  far.slow_write = true;
  CHECK (__real_pthread_create (&thread, NULL, write_one, s) == 0);
  wait_for_gate (1);
  for (uint64_t i = 0; i < 5; i++)
    check_read (s, REQUEST, i * REQUEST);
  open_gate ();
  CHECK (pthread_join (thread, NULL) == 0);
  for (uint64_t i = 5; i < 20; i++)
    check_read (s, REQUEST, i * REQUEST);
  store_close (s);
}

/* What another program changes is seen after some seconds. */
static void
test_old (void)
{
  struct store *s = open_far (false);

  for (uint64_t i = 0; i < 6; i++)
    check_read (s, REQUEST, i * REQUEST);
  {
    LOCK_FOR_SCOPE (&far.lock);
    memset (far.data + 6 * REQUEST, 'o', 20 * REQUEST);
  }
  far.later = 6;
  for (uint64_t i = 6; i < 20; i++)
    check_read (s, REQUEST, i * REQUEST);
  store_close (s);
}

static int
change_by_write (struct store *s, uint64_t offset)
{
  return store_pwrite (s, "changed", 7, offset);
}

static int
change_by_zero (struct store *s, uint64_t offset)
{
  return store_zero (s, 5, offset, 0);
}

static int
change_by_discard (struct store *s, uint64_t offset)
{
  return store_discard (s, REQUEST, offset);
}

/* A range that cannot be read fails the requests that want it, and no other. */
static void
test_failure (void)
{
  struct store *s = open_far (false);
  static uint8_t buf[REQUEST];

  far.bad = 100 * REQUEST + 5;
  far.bad_end = far.bad + 1;
  for (uint64_t i = 0; i < 140; i++)
    if (i == 100)
      CHECK (store_pread (s, buf, REQUEST, i * REQUEST) == -EIO);
    else
      check_read (s, REQUEST, i * REQUEST);
  store_close (s);
}

/* Without threads the requests do it themselves. */
static void
test_no_threads (void)
{
  struct store *s = open_far (false);

  far.no_threads = true;
  for (uint64_t at = 0; at < SIZE / 2; at += REQUEST)
    check_read (s, REQUEST, at);
  CHECK (far.most == 1);
  far.no_threads = false;
  store_close (s);
}

/* Closing waits for what is under way, and what was ordered goes. */
static void
test_close (void)
{
  struct store *s = open_far (false);

  far.gate = 4 * REQUEST;
  for (uint64_t i = 0; i < 4; i++)
    check_read (s, REQUEST, i * REQUEST);
  wait_for_gate (1);
  open_gate ();
  store_close (s);
}

/* Memory is taken from what has come and is not wanted, not from what is still
 * to come.
 */
static void
test_room (void)
{
  struct chunk_list list;

  chunks_init (&list, 4 * REQUEST);
  for (uint64_t i = 0; i < 4; i++)
    CHECK (chunks_order (&list, i * REQUEST, (i + 1) * REQUEST, 0));
  CHECK (!chunks_order (&list, 4 * REQUEST, 5 * REQUEST, 0));
  list.first->next->state = READY;
  CHECK (chunks_order (&list, 4 * REQUEST, 5 * REQUEST, 0));
  for (uint64_t i = 0; i < 5; i++) {
    size_t n = REQUEST;

    CHECK ((chunks_find (&list, i * REQUEST, &n) != NULL) == (i != 1));
  }
  chunks_drop_range (&list, 0, UINT64_MAX);
  CHECK (list.first == NULL && list.bytes == 0);
}

/* A change drops what was read of its range, and nothing beside it. */
static void
test_drop (void)
{
  struct chunk_list list;

  chunks_init (&list, 4 * REQUEST);
  for (uint64_t i = 0; i < 3; i++)
    CHECK (chunks_order (&list, i * REQUEST, (i + 1) * REQUEST, 0));
  chunks_drop_range (&list, REQUEST, 2 * REQUEST);
  for (uint64_t i = 0; i < 3; i++) {
    size_t n = REQUEST;

    CHECK ((chunks_find (&list, i * REQUEST, &n) != NULL) == (i != 1));
  }
  chunks_drop_range (&list, 0, UINT64_MAX);
}

/* As many as there are streams are known, and share what there is; one more is
 * told from them when the oldest of them has gone.
 */
static void
test_streams (void)
{
  struct streams streams = { 0 };
  uint64_t start, end, part, sum = 0;

  for (uint64_t at = 0; at < 20 * REQUEST; at += REQUEST)
    for (uint64_t i = 0; i < STREAMS; i++) {
      streams_note (&streams, i * SIZE + at, REQUEST, 0, 8 * MEMORY, 4,
                    MEMORY, &start, &end, &part);
      CHECK (at != 2 * REQUEST || start < end);
    }
  for (unsigned i = 0; i < STREAMS; i++)
    sum += streams.stream[i].window;
  CHECK (sum > 4 * MEMORY && sum <= 8 * MEMORY);

  streams_note (&streams, STREAMS * SIZE, REQUEST, 0, 8 * MEMORY, 4, MEMORY,
                &start, &end, &part);
  for (uint64_t i = 0; i < STREAMS; i++) {
    bool known = false;

    for (unsigned k = 0; k < STREAMS; k++)
      known |= streams.stream[k].next == i * SIZE + 20 * REQUEST;
    CHECK (known == (i > 0));
  }
}

/* Several that read in order, each in a part of its own, which it changes now
 * and then.
 */
#define READERS 4
#define PART (SIZE / READERS)

struct reader {
  pthread_t thread;
  struct store *s;
  unsigned number;
};

static void *
read_part (void *opaque)
{
  const struct reader *r = opaque;
  unsigned state = SEED + r->number;
  uint8_t *buf = malloc (REQUEST);
  uint64_t at = 0;

  CHECK (buf);
  for (unsigned i = 0; i < 300; i++) {
    const uint64_t start = r->number * PART + at;
    const size_t n = 1 + rand_r (&state) % REQUEST;

    if (at + n > PART) {
      at = rand_r (&state) % (PART / 2);
      continue;
    }
    if (rand_r (&state) % 8 == 0)
      CHECK (store_pwrite (r->s, &state, 1, start + n / 2) == 0);
    CHECK (store_pread (r->s, buf, n, start) == 0);
    CHECK (memcmp (buf, far.data + start, n) == 0);
    at += n;
  }
  free (buf);
  return NULL;
}

static void
test_readers (void)
{
  struct store *s = open_far (false);
  struct reader reader[READERS];

  for (unsigned i = 0; i < READERS; i++) {
    reader[i] = (struct reader) { .s = s, .number = i };
    CHECK (__real_pthread_create (&reader[i].thread, NULL, read_part,
                                  &reader[i]) == 0);
  }
  for (unsigned i = 0; i < READERS; i++)
    CHECK (pthread_join (reader[i].thread, NULL) == 0);
  store_close (s);
}

int
main (void)
{
  main_thread = pthread_self ();
  CHECK (store_ahead_new (&far.store, 0, false) == &far.store);
  CHECK (store_ahead_new (&far.store, (512 << 10) - 1, false) == &far.store);
  test_in_order (false);
  test_in_order (true);
  test_not_in_order ();
  test_quick ();
  test_narrow ();
  test_memory ();
  test_during_change ();
  test_old ();
  test_change (change_by_write);
  test_change (change_by_zero);
  test_change (change_by_discard);
  test_failure ();
  test_no_threads ();
  test_close ();
  test_room ();
  test_drop ();
  test_streams ();
  test_readers ();
  return EXIT_SUCCESS;
}
