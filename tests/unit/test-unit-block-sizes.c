/* qcow2ext: a store that serves whole blocks, and grows meanwhile.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The store's end lies within a block most of the time, and is moved on by one
 * thread while another reads, zeroes and discards across it.  What is asked of
 * the inner store is never more than what was asked of this one, but for the rest
 * of a block, and fits into the memory that it is read to.
 */

#include "build-config.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "store-blocks.h"

#define BLOCK 512
#define STEP 10001              /* the store grows by */
#define ROUNDS 20000
#define REQUEST 6000            /* bytes */

static _Atomic uint64_t size = 10 * STEP;
static atomic_uint turn;        /* the store grows once in each; 0: the end */
static uint64_t limit;          /* no request may go beyond */
static unsigned requests;

static int
grows_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  (void) s;
  CHECK (offset + count <= limit);
  memset (buf, 1, count);
  requests++;
  return 0;
}

static int
grows_pwrite (struct store *s, const void *buf, size_t count, uint64_t offset)
{
  (void) s, (void) buf;
  CHECK (offset + count <= limit);
  requests++;
  return 0;
}

static int
grows_zero (struct store *s, uint64_t count, uint64_t offset, unsigned flags)
{
  (void) s, (void) flags;
  CHECK (count <= REQUEST && offset + count <= limit);
  requests++;
  return 0;
}

static int
grows_discard (struct store *s, uint64_t count, uint64_t offset)
{
  return grows_zero (s, count, offset, 0);
}

static int
grows_size (struct store *s, uint64_t *now)
{
  (void) s;
  *now = size;
  return 0;
}

static void
grows_close (struct store *s)
{
  free (s);
}

static const struct store_ops ops = {
  .pread = grows_pread, .pwrite = grows_pwrite, .zero = grows_zero,
  .discard = grows_discard, .get_size = grows_size,
  .refresh_size = grows_size, .close = grows_close,
};

static void *
grow (void *opaque)
{
  struct store *store = opaque;

  for (unsigned seen = 1, next; (next = turn) != 0; seen = next) {
    uint64_t now;

    if (next == seen)
      continue;
    size += STEP;
    CHECK (store_refresh_size (store, &now) == 0);
  }
  return NULL;
}

int
main (void)
{
  const struct block_limits limits = {
    .minimum = BLOCK, .maximum = 64 * BLOCK, .maximum_zero = 64 * BLOCK,
  };
  struct store *inner = calloc (1, sizeof *inner), *store;
  uint8_t *buf = malloc (REQUEST);
  pthread_t thread;

  CHECK (inner && buf);
  inner->ops = &ops;
  store = store_blocks_new (inner, &limits, NULL);
  CHECK (store);
  turn = 1;
  CHECK (pthread_create (&thread, NULL, grow, store) == 0);
  for (unsigned i = 0; i < ROUNDS; i++) {
    uint64_t now;

    CHECK (store_get_size (store, &now) == 0);
    turn++;
    limit = (now + REQUEST + BLOCK - 1) & -(uint64_t) BLOCK;
    CHECK (store_pread (store, buf, REQUEST, now - REQUEST / 2) == 0);
    CHECK (store_zero (store, REQUEST, now - REQUEST / 2, 0) == 0);
    store_discard (store, REQUEST, now - REQUEST / 2);
    while (size == now)
      sched_yield ();
  }
  turn = 0;
  CHECK (pthread_join (thread, NULL) == 0);
  CHECK (requests > 0);
  store_close (store);
  free (buf);
  return EXIT_SUCCESS;
}
