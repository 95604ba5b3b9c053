/* qcow2ext: one L2 table in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   clean --set--> dirty --commit--> in commit --done--> clean
 *                                        | failed
 *                                        +--> dirty
 *
 * A table that is new has nothing on disk that refers to it: it is written as
 * a whole, before its L1 entry.
 *
 * What a table says changes under the change lock (mapping-update.h) and the
 * cache's lock for writing; to read it, either will do.  What is to be written
 * is under the change lock; is_dirty, is_new and in_commit change under the
 * cache's lock, too, for it does not evict a table of which one is true.
 */

#ifndef QCOW2_L2_TABLE_H
#define QCOW2_L2_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "commit/batch.h"
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

struct l2_table {
  struct layer *layer;
  uint32_t l1_index;
  uint64_t host;                /* where it belongs in the image file */

  /* Of the cache. */
  struct l2_table *next, *prev; /* the ring of all tables */
  atomic_bool used;             /* since the clock's hand passed */

  /* What is to be written. */
  uint64_t *dirty;              /* by sector of the table on disk; NULL: it
                                   never was */
  bool is_dirty, is_new, in_commit;
  bool was_new;                 /* when the commit that it is in took it */
  struct l2_table *next_dirty, *next_in_commit;

  bool compact;                 /* payload is enum l2_state, 2 bits each */
  size_t bytes;                 /* of payload */
  uint64_t payload[];           /* be64, qcow2_extended_entry or states */
};

/* Makes a table, of zeros; NULL if there is no memory. */
struct l2_table *l2_table_new (struct layer *layer, uint32_t l1_index,
                               uint64_t host);

/* Reads a table that has been found to lie within the file.  0 or -errno. */
int l2_table_read (struct layer *layer, uint32_t l1_index, uint64_t offset,
                   struct l2_table **result);
void l2_table_free (struct l2_table *t);

/* What a table takes in memory, in bytes: the one measure of the cache, of
 * what is dirty, and of a commit's rounds.
 */
static inline size_t
l2_table_memory (const struct l2_table *t)
{
  return sizeof *t + t->bytes;
}

/* Prepares a table for changes; 0 or -ENOMEM. */
int l2_table_prepare (struct l2_table *t);

/* Sets an entry of a table that is prepared. */
void l2_table_set (struct l2_table *t, uint32_t index, uint64_t entry,
                   uint64_t bitmap);

/* Adds what has changed to a batch; 0 or -ENOMEM. */
int l2_table_collect (const struct l2_table *t, struct batch *batch);

/* The table's bytes as they lie on disk, from a sector on. */
void l2_table_encode (const struct l2_table *t, size_t sector, size_t count,
                      void *buf);

/* How many entries of a compact table, from index on, say the same: a zero
 * cluster does so whether it is allocated or not.  Looks at max entries, which
 * the table must have, or at a few more.
 */
uint32_t l2_table_same (const struct l2_table *t, uint32_t index,
                        uint32_t max);

/* One entry of a compact table. */
static inline enum l2_state
l2_table_state (const struct l2_table *t, uint32_t index)
{
  const uint8_t *states = (const uint8_t *) t->payload;

  return (states[index / 4] >> (index % 4 * 2)) & 3;
}

/* One entry.  The bitmap is 0 without extended L2. */
static inline uint64_t
l2_table_get (const struct l2_table *t, uint32_t index, uint64_t *bitmap)
{
  const struct layer *layer = t->layer;

  *bitmap = 0;
  if (t->compact) {
    const uint64_t offset =
      (((uint64_t) t->l1_index << layer->geo.l2_bits) + index)
      << layer->geo.cluster_bits;

    switch (l2_table_state (t, index)) {
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

#endif /* QCOW2_L2_TABLE_H */
