/* qcow2ext: L2 tables in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_TABLE_CACHE_H
#define QCOW2_TABLE_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/brlock.h"
#include "disk/format.h"
#include "map/layer.h"

/* Of an image with an external data file, a sound standard entry is one of
 * these, since its offset is the guest's: two bits stand for 64.
 */
enum l2_state {
  L2_UNALLOCATED = 0,           /* entry 0 */
  L2_ZERO = 1,                  /* zero flag, nothing allocated */
  L2_DATA = 2,                  /* copied | guest offset */
  L2_ZERO_ALLOCATED = 3,        /* copied | guest offset | zero flag */
};

/* A table in memory.  It is read under cache->lock and lives until it is
 * evicted, which needs that lock for writing.
 */
struct l2_table {
  struct layer *layer;
  uint32_t l1_index;
  struct l2_table *next, *prev; /* the ring of all tables */
  atomic_bool used;             /* since the clock's hand passed */
  bool compact;                 /* payload is enum l2_state, 2 bits each */
  uint64_t host;                /* where it belongs in the image file */

  /* Changes that are not yet on disk: a bit for each sector of the table as
   * it lies on disk (NULL: none ever), or all of it (fresh: nothing on disk
   * refers to it yet).  busy: a commit is writing it.  Guarded by the lock of
   * the writer as well; such a table is not evicted.
   */
  uint64_t *dirty;
  bool is_dirty, fresh, busy;
  bool was_fresh;               /* while busy: what fresh was */
  struct l2_table *dirty_next, *busy_next;
  size_t bytes;                 /* of payload */
  uint64_t payload[];           /* be64, qcow2_extended_entry or states */
};

struct table_cache;

struct table_cache *table_cache_new (size_t limit);
void table_cache_free (struct table_cache *cache);

/* The lock under which tables are looked at. */
struct brlock *table_cache_lock (struct table_cache *cache);

/* Brings the L2 table of l1_index (whose L1 entry is not 0) into
 * layer->l2[l1_index].  It may be gone again when the caller gets to look.
 * Takes no lock that a look-up needs while it reads.
 *
 * Returns 0, or -errno with *why saying what is wrong with the table, or
 * NULL where the errno says it all.
 */
int table_cache_load (struct layer *layer, uint32_t l1_index,
                      const char **why);

/* Makes an empty table for l1_index, which has none, to lie at host in the
 * image file, and puts it into its slot, fresh.  Sets the L1 entry.  Returns
 * NULL if there is no memory.
 */
struct l2_table *table_cache_create (struct layer *layer, uint32_t l1_index,
                                     uint64_t host);

/* Sets an entry, under the write side of the lock, and marks the change. */
void l2_table_set (struct l2_table *t, uint32_t index, uint64_t entry,
                   uint64_t bitmap);

/* Prepares a table for l2_table_set; 0 or -ENOMEM. */
int l2_table_prepare (struct l2_table *t);

/* The table's bytes as they lie on disk, from a sector on. */
void l2_table_encode (const struct l2_table *t, size_t sector, size_t count,
                      void *buf);

/* Bytes in memory now, and the most there should be. */
void table_cache_usage (struct table_cache *cache, size_t *bytes,
                        size_t *limit);

/* Drops all tables of an image. */
void table_cache_drop (struct layer *layer);

/* How many entries of a compact table, from index on, say the same: a zero
 * cluster does so whether it is allocated or not.  Looks at max entries, which
 * the table must have, or at a few more.
 */
uint32_t l2_table_same (const struct l2_table *t, uint32_t index,
                        uint32_t max);

/* One entry.  The bitmap is 0 without extended L2. */
static inline uint64_t
l2_table_get (const struct l2_table *t, uint32_t index, uint64_t *bitmap)
{
  const struct layer *layer = t->layer;

  *bitmap = 0;
  if (t->compact) {
    const uint8_t *states = (const uint8_t *) t->payload;
    const uint64_t offset =
      (((uint64_t) t->l1_index << layer->geo.l2_bits) + index)
      << layer->geo.cluster_bits;

    switch ((states[index / 4] >> (index % 4 * 2)) & 3) {
    case L2_ZERO:
      return QCOW2_L2_ZERO;
    case L2_DATA:
      return offset | QCOW2_COPIED;
    case L2_ZERO_ALLOCATED:
      return offset | QCOW2_COPIED | QCOW2_L2_ZERO;
    default:
      return 0;
    }
  }
  if (layer->geo.extended_l2) {
    const struct qcow2_extended_entry *e = (const void *) t->payload;

    *bitmap = be64_get (e[index].bitmap);
    return be64_get (e[index].entry);
  }
  return be64_get (((const be64 *) t->payload)[index]);
}

#endif /* QCOW2_TABLE_CACHE_H */
