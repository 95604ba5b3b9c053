/* qcow2ext: refcount blocks that are made ahead.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A store in memory of which a flush can be held up, as on a slow disk: others
 * allocate what is left meanwhile, and nobody gets what the new blocks take.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "base/report.h"
#include "space/allocator.h"
#include "space/byte-allocator.h"
#include "space/refcounts.h"

#define CLUSTER_BITS 9
#define CLUSTER (UINT64_C (1) << CLUSTER_BITS)
#define PER_BLOCK (CLUSTER / 2)
#define ENTRIES (CLUSTER / 8)   /* the table is one cluster */
#define USED 3                  /* header, table, first block */
#define MEMORY (16 << 20)

static uint8_t bytes[MEMORY];
static uint64_t size;
static unsigned flushes, writes, messages;
static unsigned writes_left;    /* then there is no more space */
static uint64_t known_zero;     /* clusters that were said to read as zeros */
static bool hold, held;         /* a flush */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static int
memory_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  (void) s;
  CHECK (offset + count <= MEMORY);
  memcpy (buf, bytes + offset, count);
  return 0;
}

static int
memory_pwrite (struct store *s, const void *buf, size_t count, uint64_t offset)
{
  (void) s;
  CHECK (offset + count <= MEMORY);
  writes++;
  if (writes_left == 0)
    return -ENOSPC;
  writes_left--;
  memcpy (bytes + offset, buf, count);
  if (size < offset + count)
    size = offset + count;
  return 0;
}

static int
memory_size (struct store *s, uint64_t *result)
{
  (void) s;
  *result = size;
  return 0;
}

static int
memory_resize (struct store *s, uint64_t new_size)
{
  (void) s;
  if (new_size < size)
    memset (bytes + new_size, 0, size - new_size);
  size = new_size;
  return 0;
}

static int
memory_flush (struct store *s)
{
  (void) s;
  pthread_mutex_lock (&lock);
  flushes++;
  held = hold;
  pthread_cond_broadcast (&changed);
  while (hold)
    pthread_cond_wait (&changed, &lock);
  held = false;
  pthread_mutex_unlock (&lock);
  return 0;
}

static const struct store_ops ops = {
  .pread = memory_pread, .pwrite = memory_pwrite, .flush = memory_flush,
  .get_size = memory_size, .resize = memory_resize,
};
static struct store store = { .ops = &ops, .name = (char *) "memory" };
static struct header header = {
  .cluster_bits = CLUSTER_BITS, .refcount_order = 4, .version = 3,
  .reftable_offset = CLUSTER, .reftable_clusters = 1,
};
static struct health health = { .file = &store, .header = &header };
static struct metadata_map metadata;
static _Atomic uint64_t file_size;
static struct refcounts rc;
static bool taken[ENTRIES * PER_BLOCK];

static void
sink (enum report_level level, const char *message)
{
  if (level == REPORT_DEBUG)
    return;
  messages++;
  printf ("%s\n", message);
}

/* A new image of so many clusters, all of them in use. */
static void
begin (unsigned used)
{
  be64 *table = (be64 *) (bytes + CLUSTER);
  be16 *count = (be16 *) (bytes + 2 * CLUSTER);

  memset (bytes, 0, sizeof bytes);
  memset (taken, 0, sizeof taken);
  table[0] = be64_make (2 * CLUSTER);
  for (unsigned i = 0; i < used; i++) {
    count[i] = be16_make (1);
    taken[i] = true;
  }
  size = used * CLUSTER;
  writes_left = 1000;
  flushes = messages = 0;
  known_zero = 0;
  atomic_init (&health.failed, false);
  header.incompatible = 0;
  metadata_map_init (&metadata, CLUSTER_BITS);
  for (unsigned i = 0; i < USED; i++)
    CHECK (metadata_map_add (&metadata, i) == 0);
  refcounts_init (&rc, &health, &metadata, &file_size);
  CHECK (refcounts_open (&rc) == 0);
  rc.end.can_grow = true;
}

static void
end (void)
{
  refcounts_destroy (&rc);
  metadata_map_destroy (&metadata);
}

/* Allocates one cluster. */
static int
alloc (uint64_t *cluster)
{
  uint64_t offset, got;
  bool zero;
  const int r = allocator_alloc (&rc, 1, &offset, &got, &zero);

  if (r < 0)
    return r;
  *cluster = offset >> CLUSTER_BITS;
  pthread_mutex_lock (&lock);
  CHECK (got == 1 && !taken[*cluster]);
  CHECK (!metadata_map_overlaps (&metadata, offset, 1));
  taken[*cluster] = true;
  known_zero += zero;
  /* What is said to read as zeros does. */
  for (uint64_t i = 0; zero && i < CLUSTER; i++)
    CHECK (bytes[offset + i] == 0);
  pthread_mutex_unlock (&lock);
  return 0;
}

/* What an allocation of another thread has got. */
struct other {
  pthread_t thread;
  uint64_t cluster;
  int error;
  bool done;
};

static void *
other_main (void *opaque)
{
  struct other *o = opaque;
  const int r = alloc (&o->cluster);

  pthread_mutex_lock (&lock);
  o->error = r;
  o->done = true;
  pthread_cond_broadcast (&changed);
  pthread_mutex_unlock (&lock);
  return NULL;
}

static void
start (struct other *o)
{
  *o = (struct other) { .done = false };
  CHECK (pthread_create (&o->thread, NULL, other_main, o) == 0);
}

static void
join (struct other *o)
{
  pthread_join (o->thread, NULL);
  CHECK (o->error == 0);
}

/* Waits until an allocation is done or a flush is held up, and returns whether
 * it is the flush.
 */
static bool
is_held (const struct other *o)
{
  bool result;

  pthread_mutex_lock (&lock);
  while (!o->done && !held)
    pthread_cond_wait (&changed, &lock);
  result = held;
  pthread_mutex_unlock (&lock);
  return result;
}

static void
release (void)
{
  pthread_mutex_lock (&lock);
  hold = false;
  pthread_cond_broadcast (&changed);
  pthread_mutex_unlock (&lock);
}

static uint64_t
entry_on_disk (unsigned i)
{
  return be64_get (((be64 *) (bytes + CLUSTER))[i]);
}

/* All that is taken or metadata has a count of 1, and nothing else has one. */
static void
check_counts (uint64_t blocks)
{
  uint64_t count;

  for (uint64_t c = 0; c < blocks * PER_BLOCK; c++) {
    CHECK (refcounts_get (&rc, c, &count) == 0);
    CHECK (count == (taken[c]
                     || metadata_map_overlaps (&metadata, c * CLUSTER, 1)));
  }
}

/* Others go on while blocks are flushed, until there is nothing left. */
static void
test_others_go_on (void)
{
  struct other maker, waiting;
  uint64_t c;

  begin (200);
  hold = true;
  /* Near the end is an eighth of what is in use. */
  while (start (&maker), !is_held (&maker))
    join (&maker);
  CHECK (entry_on_disk (1) == 0);
  for (c = 0; c < PER_BLOCK - 1;)
    CHECK (alloc (&c) == 0);
  /* The end of the file is where they are, and is not given back. */
  CHECK (size == (PER_BLOCK + 1) * CLUSTER);
  CHECK (allocator_trim_tail (&rc) == 0 && messages == 0);
  CHECK (size == (PER_BLOCK + 1) * CLUSTER);
  /* What needs the new block waits. */
  start (&waiting);
  usleep (50000);
  CHECK (!waiting.done && !maker.done && flushes == 1);
  release ();
  join (&maker);
  CHECK (maker.cluster > 200 && maker.cluster < PER_BLOCK - 20);
  join (&waiting);
  CHECK (waiting.cluster == PER_BLOCK + 1);
  CHECK (entry_on_disk (1) == PER_BLOCK * CLUSTER && flushes == 2);
  for (unsigned i = 0; i < 100; i++)
    CHECK (alloc (&c) == 0 && c == PER_BLOCK + 2 + i);
  check_counts (2);
  CHECK (messages == 0);
  CHECK (known_zero == PER_BLOCK - 200 + 1 + 100);
  end ();
}

/* A request for compressed data that waits for blocks with part of its room
 * found, and others that come meanwhile.
 */
struct pieces {
  pthread_t thread;
  struct packed piece[2];
  size_t count;
};

static void *
pieces_main (void *opaque)
{
  struct pieces *p = opaque;
  size_t got;

  for (size_t n = 0; n < p->count; n += got)
    CHECK (byte_allocator_alloc (&rc, p->piece + n, p->count - n, &got) == 0);
  return NULL;
}

static void
test_sectors_apart (void)
{
  struct pieces p[12];
  struct other maker;
  uint64_t c;

  begin (200);
  hold = true;
  while (start (&maker), !is_held (&maker))
    join (&maker);
  for (c = 0; c < PER_BLOCK - 2;)
    CHECK (alloc (&c) == 0);
  for (unsigned i = 0; i < 12; i++) {
    p[i] = (struct pieces) {
      .piece = { { .size = i ? 100 : 300 }, { .size = 300 } },
      .count = i ? 1 : 2,
    };
    CHECK (pthread_create (&p[i].thread, NULL, pieces_main, &p[i]) == 0);
    usleep (1000);
  }
  release ();
  join (&maker);
  for (unsigned i = 0; i < 12; i++)
    pthread_join (p[i].thread, NULL);
  /* Both pieces of the first one and one of each other, sector by sector. */
  for (unsigned i = 1; i < 12; i++)
    for (unsigned j = 0; j < 2; j++) {
      const struct packed *q = &p[0].piece[j];
      const uint64_t sector = p[i].piece[0].host / QCOW2_SECTOR_SIZE;

      CHECK (sector < q->host / QCOW2_SECTOR_SIZE
             || sector > (q->host + q->size - 1) / QCOW2_SECTOR_SIZE);
    }
  end ();
}

/* A disk that is full when blocks are made ahead: that is no request's failure,
 * but that of the one that needs them.
 */
static void
test_no_space (void)
{
  uint64_t c;

  begin (200);
  writes_left = writes = 0;
  for (c = 0; c < PER_BLOCK - 1;)
    CHECK (alloc (&c) == 0);
  CHECK (writes == 1);
  CHECK (alloc (&c) == -ENOSPC && alloc (&c) == -ENOSPC);
  CHECK (writes == 3 && entry_on_disk (1) == 0);
  writes_left = 1000;
  CHECK (alloc (&c) == 0 && c == PER_BLOCK + 1);
  check_counts (2);
  CHECK (messages == 0);
  end ();
}

/* Of several blocks only the first fits: what it has added to the file is given
 * back in the end, as what this session has written.
 */
static void
test_part_fits (void)
{
  const uint64_t last = 4 * PER_BLOCK - 124; /* not near the end */
  uint64_t c, n = 0;

  begin (200);
  for (c = 0; c < last; n++)
    CHECK (alloc (&c) == 0);
  CHECK (known_zero == n);
  writes_left = 1;
  while (alloc (&c) == 0)
    continue;
  CHECK (size > (c + 1) * CLUSTER && entry_on_disk (4) == 0);
  for (uint64_t i = last - 20; i <= c; i++) {
    allocator_give_back (&rc, i * CLUSTER, 1);
    taken[i] = false;
  }
  writes_left = 1000;
  CHECK (allocator_trim_tail (&rc) == 0);
  CHECK (size == (last - 20) * CLUSTER);
  CHECK (messages == 0);
  check_counts (4);
  end ();
}

/* A table that the file has lost would be overwritten by a new block: to say so
 * is for the request that needs the block.
 */
static void
test_lost_table (void)
{
  uint64_t c;

  begin (200);
  metadata.first_lost = PER_BLOCK;
  for (c = 0; c < PER_BLOCK - 1;)
    CHECK (alloc (&c) == 0);
  CHECK (messages == 0 && entry_on_disk (1) == 0);
  CHECK (alloc (&c) == -EIO);
  CHECK (messages == 1);
  end ();
}

int
main (void)
{
  alarm (60);                   /* what waits for ever has failed */
  report_set_sink (sink);
  test_others_go_on ();
  for (unsigned i = 0; i < 20; i++)
    test_sectors_apart ();
  test_no_space ();
  test_part_fits ();
  test_lost_table ();
  return EXIT_SUCCESS;
}
