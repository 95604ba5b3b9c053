/* qcow2ext: the cache of decoded clusters: failures, and reading ahead.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A cluster that cannot be read fails all that wait for it, and leaves nothing
 * behind.  The second piece of a cluster asks for the next cluster, once.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "data/decoded-cache.h"
#include "data/encoder.h"

#define CLUSTER_BITS 16
#define CLUSTER (1 << CLUSTER_BITS)
#define PIECE (CLUSTER / 8)

/* What malloc returns has been used before. */
void *__real_malloc (size_t size);
void *__wrap_malloc (size_t size);

void *
__wrap_malloc (size_t size)
{
  void *p = __real_malloc (size);

  return p ? memset (p, 0xa5, size) : NULL;
}

/* --- a layer, all of whose clusters are the same --- */

static uint8_t packed[CLUSTER];
static ssize_t packed_size;
static atomic_uint reads;
static atomic_bool fails, is_held;

static void
wait_a_moment (void)
{
  nanosleep (&(struct timespec) { .tv_nsec = 10000000 }, NULL);
}

static int
packed_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  (void) s, (void) offset;
  reads++;
  while (is_held)
    wait_a_moment ();
  if (fails)
    return -EIO;
  memcpy (buf, packed, count);
  return 0;
}

static const struct store_ops ops = { .pread = packed_pread };
static struct store store = { .ops = &ops, .name = (char *) "packed" };
static struct layer layer;

static void
begin (size_t limit)
{
  static uint8_t cluster[CLUSTER];
  struct encoder *e = encoder_new (0, CLUSTER);

  memset (cluster, 7, sizeof cluster);
  CHECK (e != NULL);
  packed_size = encoder_run (e, cluster, packed);
  CHECK (packed_size > 0);
  encoder_free (e);
  layer.file = &store;
  layer.geo.cluster_bits = CLUSTER_BITS;
  atomic_init (&layer.file_size, UINT64_C (1) << 40);
  layer.decoded = decoded_cache_new (limit);
  CHECK (layer.decoded != NULL);
  layer.content = decoded_cache_content (&store);
}

static void
end (void)
{
  decoded_cache_unref (layer.decoded);
}

static struct run
run_at (uint64_t host, uint64_t length)
{
  return (struct run) {
    .type = RUN_COMPRESSED, .length = length, .host = host,
    .compressed_size = packed_size,
  };
}

/* Reads a piece of the cluster at host. */
static int
read_piece (uint64_t host, unsigned number, bool *ahead)
{
  static const struct compressed_input none = { NULL, 0 };
  const struct run run = run_at (host, PIECE);
  uint8_t buf[PIECE];
  int r = decoded_cache_read (&layer, number * PIECE, &run, none, buf, ahead);

  for (unsigned i = 0; r == 0 && i < PIECE; i++)
    CHECK (buf[i] == 7);
  return r;
}

/* --- tests --- */

static void *
read_first (void *opaque)
{
  bool ahead;

  (void) opaque;
  CHECK (read_piece (0, 0, &ahead) == -EIO);
  return NULL;
}

static void
test_failure (void)
{
  pthread_t thread[2];
  bool ahead;

  begin (16 * CLUSTER);
  fails = is_held = true;
  for (unsigned i = 0; i < 2; i++)
    CHECK (pthread_create (&thread[i], NULL, read_first, NULL) == 0);
  while (reads == 0)
    wait_a_moment ();
  wait_a_moment ();             /* the other one waits for this one */
  is_held = false;
  for (unsigned i = 0; i < 2; i++)
    CHECK (pthread_join (thread[i], NULL) == 0);
  fails = false;
  CHECK (read_piece (0, 0, &ahead) == 0);
  end ();
}

static void
test_ahead (void)
{
  bool ahead;

  begin (16 * CLUSTER);
  for (unsigned i = 0; i < 8; i++) {
    CHECK (read_piece (0, i, &ahead) == 0);
    CHECK (ahead == (i == 1));
  }
  end ();
  /* Not where there is hardly room for one. */
  begin (3 * CLUSTER);
  for (unsigned i = 0; i < 8; i++) {
    CHECK (read_piece (0, i, &ahead) == 0);
    CHECK (!ahead);
  }
  end ();
}

/* No more than is allowed, nor than half of the cache. */
static void
test_budget (void)
{
  uint64_t budget = 2 * CLUSTER;
  unsigned n = 0;

  begin (16 * CLUSTER);
  for (struct run run = run_at (0, CLUSTER);
       n < 99 && decoded_cache_prefetch (&layer, &run, &budget);
       run.host += CLUSTER)
    n++;
  CHECK (n == 2 && budget == 0);
  budget = 100 * CLUSTER;
  for (struct run run = run_at (0, CLUSTER);
       n < 99 && decoded_cache_prefetch (&layer, &run, &budget);
       run.host += CLUSTER)
    n++;
  CHECK (n == 2 + 8 && budget == 0);
  end ();
}

int
main (void)
{
  test_failure ();
  test_ahead ();
  test_budget ();
  return EXIT_SUCCESS;
}
