/* qcow2ext: L2 tables that are brought into memory together.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A request that needs several tables reads the first one and tells the store
 * of the others, or reads all of them if they are far away.  One that needs a
 * single table costs no more than that, but if such requests come in order.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "map/l2-cache.h"
#include "map/tables-ahead.h"

#define CLUSTER_BITS 12
#define CLUSTER (UINT64_C (1) << CLUSTER_BITS)
#define REACH (CLUSTER / 8 * CLUSTER) /* of an L2 table */
#define TABLES 1200
#define LOOKED_AT 512          /* L1 entries in which tables are looked for */
#define FIRST 10                /* the cluster of the first table */

/* How often each table was read, and the store told of it. */
static unsigned is_read[TABLES], told[TABLES];
static uint32_t fails = UINT32_MAX; /* a table */
static be64 l1[TABLES];
static struct l2_table *slots[TABLES];
static struct layer layer;

static uint32_t
table_at (uint64_t offset, uint64_t count)
{
  CHECK (count == CLUSTER && offset % CLUSTER == 0);
  CHECK (offset >= FIRST * CLUSTER && offset < (FIRST + TABLES) * CLUSTER);
  return offset / CLUSTER - FIRST;
}

static int
table_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  const uint32_t i = table_at (offset, count);

  (void) s;
  is_read[i]++;
  memset (buf, 0, count);
  return i == fails ? -ENOMEM : 0;
}

static int
table_cache (struct store *s, uint64_t count, uint64_t offset)
{
  (void) s;
  told[table_at (offset, count)]++;
  return 0;
}

static const struct store_ops ops = {
  .pread = table_pread, .cache = table_cache,
};
static struct store store = { .ops = &ops, .name = (char *) "tables" };

/* What a cache has of locks is made once, and ends with it. */
static int mutexes;

int __real_pthread_mutex_init (pthread_mutex_t *m,
                               const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_init (pthread_mutex_t *m,
                               const pthread_mutexattr_t *attr);
int __real_pthread_mutex_destroy (pthread_mutex_t *m);
int __wrap_pthread_mutex_destroy (pthread_mutex_t *m);

int
__wrap_pthread_mutex_init (pthread_mutex_t *m,
                           const pthread_mutexattr_t *attr)
{
  mutexes++;
  return __real_pthread_mutex_init (m, attr);
}

int
__wrap_pthread_mutex_destroy (pthread_mutex_t *m)
{
  CHECK (mutexes-- > 0);
  return __real_pthread_mutex_destroy (m);
}

static void
begin (bool far, size_t limit)
{
  CHECK (mutexes == 0);
  store.far = far;
  for (uint32_t i = 0; i < TABLES; i++)
    l1[i] = be64_make (((FIRST + i) * CLUSTER) | QCOW2_COPIED);
  layer = (struct layer) {
    .file = &store, .l1 = l1, .l1_entries = TABLES, .l2 = slots,
    .geo = { .version = 3, .cluster_bits = CLUSTER_BITS,
             .subcluster_bits = CLUSTER_BITS, .l2_bits = CLUSTER_BITS - 3 },
    .tables = l2_cache_new (limit),
  };
  CHECK (layer.tables != NULL);
  atomic_init (&layer.file_size, (FIRST + TABLES) * CLUSTER);
  /* Not in order with what comes first. */
  atomic_init (&layer.last_loaded, TABLES);
}

static void
end (void)
{
  l2_cache_drop (&layer);
  l2_cache_free (layer.tables);
  CHECK (mutexes == 0);
}

static int
load (uint32_t first, uint32_t count)
{
  const char *why;

  memset (is_read, 0, sizeof is_read);
  memset (told, 0, sizeof told);
  return tables_load (&layer, first * REACH, count * REACH, &why);
}

/* Was just this told or read, once each: the tables from first on, but for one
 * of them?
 */
static bool
are_just (const unsigned *times, uint32_t first, uint32_t count,
          uint32_t without)
{
  for (uint32_t i = 0; i < TABLES; i++)
    if (times[i] != (i >= first && i < first + count && i != without))
      return false;
  return true;
}

static void
test_near (void)
{
  begin (false, 1 << 20);
  CHECK (load (3, 1) == 0);
  CHECK (are_just (is_read, 3, 1, TABLES) && are_just (told, 0, 0, TABLES));
  CHECK (load (20, 8) == 0);
  CHECK (are_just (is_read, 20, 1, TABLES) && are_just (told, 21, 7, TABLES));

  /* In order: nothing is gained, as the file system reads ahead by itself. */
  for (unsigned i = 28; i < 32; i++) {
    CHECK (load (i, 1) == 0);
    CHECK (are_just (is_read, i, 1, TABLES) && are_just (told, 0, 0, TABLES));
  }

  /* One that is in memory already, is not there, or is misplaced. */
  CHECK (load (42, 1) == 0);
  CHECK (load (40, 8) == 0);
  CHECK (are_just (is_read, 40, 1, TABLES) && are_just (told, 41, 7, 42));
  l1[62] = be64_make (0);
  CHECK (load (60, 8) == 0);
  CHECK (are_just (told, 61, 7, 62));
  l1[83] = be64_make ((FIRST + 83) * CLUSTER + CLUSTER / 2);
  CHECK (load (80, 8) == 0);
  CHECK (are_just (told, 81, 7, 83));
  l1[104] = be64_make ((FIRST + TABLES) * CLUSTER);
  CHECK (load (100, 8) == 0);
  CHECK (are_just (told, 101, 7, 104));
  end ();
}

/* Where the disk is mostly empty, tables are looked for only so far. */
static void
test_sparse (void)
{
  begin (false, 1 << 20);
  CHECK (load (TABLES - 20, 20) == 0);
  CHECK (are_just (told, TABLES - 19, 19, TABLES));
  for (uint32_t i = 21; i < 20 + LOOKED_AT; i++)
    l1[i] = be64_make (0);
  CHECK (load (20, 600) == 0);
  CHECK (are_just (told, 20 + LOOKED_AT, 1, TABLES));
  end ();
}

static void
test_far (void)
{
  begin (true, 1 << 20);
  CHECK (load (3, 1) == 0);
  CHECK (are_just (is_read, 3, 1, TABLES));
  CHECK (load (20, 8) == 0);
  CHECK (are_just (is_read, 20, 8, TABLES));
  /* In order: the tables of three more such requests. */
  CHECK (load (28, 1) == 0);
  CHECK (are_just (is_read, 28, 4, TABLES));
  CHECK (load (32, 2) == 0);
  CHECK (are_just (is_read, 32, 8, TABLES));
  CHECK (are_just (told, 0, 0, TABLES));

  /* What fails of those that come along is found when it is wanted. */
  fails = 61;
  CHECK (load (60, 8) == 0);
  CHECK (are_just (is_read, 60, 8, TABLES));
  CHECK (load (61, 1) == -ENOMEM);
  fails = UINT32_MAX;
  CHECK (load (61, 1) == 0);
  end ();
}

/* No more come along than are of use: the cache is for other tables, too. */
static void
test_small_cache (void)
{
  begin (true, 16 * CLUSTER);
  CHECK (load (20, 100) == 0);
  CHECK (are_just (is_read, 20, 4, TABLES));
  end ();
  begin (true, 1 << 20);
  CHECK (load (20, 100) == 0);
  CHECK (are_just (is_read, 20, 32, TABLES));
  end ();
}

int
main (void)
{
  test_near ();
  test_sparse ();
  test_far ();
  test_small_cache ();
  return EXIT_SUCCESS;
}
