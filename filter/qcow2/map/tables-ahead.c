/* qcow2ext: brings several L2 tables into memory at once.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The map of a disk needs one table after the other.  Far away, each costs a
 * round trip; on a local disk that is cold, the kernel can fetch them side by
 * side if it is told.  The range of a request says which tables it needs.  A
 * request that begins where the last one ended has, most likely, another one
 * behind it that is as large.
 */

#include "build-config.h"

#include "base/bits.h"
#include "base/crew.h"
#include "map/l2-cache.h"
#include "map/tables-ahead.h"

/* The most tables, in how many L1 entries they are looked for, and how many
 * requests' tables are loaded if these come in order.
 */
#define TABLES_MAX 32
#define LOOKS 512
#define REQUESTS 4

struct tables {
  struct layer *layer;
  uint32_t index[TABLES_MAX];   /* of L1; the first is the one that is wanted */
  size_t count;
  const char **why;
  int result;                   /* of the first */
};

/* Is the table neither in memory nor absent nor misplaced? */
static bool
can_load (const struct layer *layer, uint32_t index)
{
  const uint64_t host = layer_l2_offset (layer, index);

  return layer->l2[index] == NULL && host != 0
    && (host & (layer_cluster_size (layer) - 1)) == 0
    && host < layer_file_size (layer);
}

/* Adds those of the tables from an L1 index to before another one. */
static void
add (struct tables *t, uint64_t index, uint64_t end, size_t most)
{
  const struct layer *layer = t->layer;
  pthread_mutex_t *reader = brlock_read (&layer->tables->lock);

  end = min64 (min64 (end, index + LOOKS), layer->l1_entries);
  for (; index < end && t->count < most; index++)
    if (can_load (layer, index))
      t->index[t->count++] = index;
  pthread_mutex_unlock (reader);
}

static int
load (void *opaque, size_t i)
{
  struct tables *t = opaque;
  const char *ignored;

  if (i == 0)
    t->result = l2_cache_load (t->layer, t->index[0], t->why);
  else                          /* what is wrong is found when it is wanted */
    l2_cache_load (t->layer, t->index[i], &ignored);
  return 0;
}

static void
tell_store (const struct tables *t)
{
  for (size_t i = 1; i < t->count; i++)
    store_cache (t->layer->file, layer_cluster_size (t->layer),
                 layer_l2_offset (t->layer, t->index[i]));
}

int
tables_load (struct layer *layer, uint64_t offset, uint64_t wanted,
             const char **why)
{
  const unsigned bits = geometry_table_bits (&layer->geo);
  const uint64_t first = offset >> bits;
  const size_t most =
    min64 (layer->tables->limit / 4 / layer_cluster_size (layer), TABLES_MAX);
  const bool in_order =
    atomic_load_explicit (&layer->last_loaded, memory_order_relaxed) + 1
    == first;
  struct tables t = {
    .layer = layer, .index[0] = first, .count = 1, .why = why,
  };
  const uint64_t end = div_round_up (offset + wanted, bits);

  if (end - first > 1 || (in_order && layer->file->far))
    add (&t, first + 1, in_order ? first + REQUESTS * (end - first) : end,
         most);
  atomic_store_explicit (&layer->last_loaded, t.index[t.count - 1],
                         memory_order_relaxed);
  if (layer->file->far) {
    crew_run (layer->waiters, t.count, load, &t);
    return t.result;
  }
  tell_store (&t);
  load (&t, 0);
  return t.result;
}
