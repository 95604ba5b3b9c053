/* qcow2ext: L2 tables in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * One cache serves all layers of a chain, bounded in bytes; the slots that
 * point at the tables belong to the layers.
 *
 *   slot NULL --load--> table in the slot and in the ring --evict--> NULL
 *
 * Invariants: a table is in exactly one slot and in the ring; what a slot
 * shows changes only under the write side of the lock; a table that a reader
 * found under the read side is complete.
 *
 * Lock order: load_lock[i] (held while a table is read, so that two threads
 * do not read the same one), then lock.  Eviction is a clock: a look-up marks
 * the table, the hand takes away marks and then tables.
 *
 * The cache also has the lists of tables that are to be written:
 *
 *   dirty --commit begins--> waiting --round--> in commit --done--> none
 *
 * A table that waits is still dirty: what is changed of it until its round is
 * written then.  Only the
 * topmost layer of a chain has such, and that list is under its change lock
 * (mapping-update.h), which is taken before the cache's.
 */

#ifndef QCOW2_L2_CACHE_H
#define QCOW2_L2_CACHE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/brlock.h"
#include "commit/commit.h"
#include "map/l2-table.h"

#define L2_CACHE_LOAD_LOCKS 16

struct l2_cache {
  struct brlock lock;           /* under which tables are looked at */
  size_t limit;                 /* bytes; constant */
  _Atomic size_t dirty_bytes;   /* in memory, of tables to be written */

  /* Private. */
  size_t bytes;                 /* in the ring; under lock */
  size_t count;                 /* of tables in the ring; under lock */
  struct l2_table *hand;        /* NULL: the ring is empty; under lock */
  struct l2_table *dirty, *waiting, *in_commit; /* under the change lock */
  pthread_mutex_t load_lock[L2_CACHE_LOAD_LOCKS];
};

struct l2_cache *l2_cache_new (size_t limit);
void l2_cache_free (struct l2_cache *cache);

/* Brings the L2 table of l1_index (whose L1 entry is not 0) into
 * layer->l2[l1_index].  It may be gone again when the caller gets to look.
 * Takes no lock that a look-up needs while it reads.
 *
 * Returns 0, or -errno with *why saying what is wrong with the table, or
 * NULL where the errno says it all.
 */
int l2_cache_load (struct layer *layer, uint32_t l1_index, const char **why);

/* Makes an empty table for l1_index, which has none, to lie at host in the
 * image file, and puts it into its slot, to be written.  The caller, under the
 * change lock, sets the L1 entry then.  Returns NULL if there is no memory.
 */
struct l2_table *l2_cache_create (struct layer *layer, uint32_t l1_index,
                                  uint64_t host);

/* Bytes in memory now, and the most there should be. */
void l2_cache_usage (struct l2_cache *cache, size_t *bytes, size_t *limit);

/* Are so many tables to be written, and cannot go before, that a commit should
 * make room for others?
 */
static inline bool
l2_cache_needs_commit (const struct l2_cache *cache)
{
  return atomic_load_explicit (&cache->dirty_bytes, memory_order_relaxed)
    > cache->limit / 2;
}

/* Drops all tables of a layer. */
void l2_cache_drop (struct layer *layer);

/* --- what is to be written; under the change lock --- */

/* The table is to be written.  Under the cache's lock for writing, too. */
void l2_cache_mark_dirty (struct l2_cache *cache, struct l2_table *t);

/* For commit: what is dirty now is to be written in this commit. */
void l2_cache_begin (struct l2_cache *cache);

/* Copies changes, as much as the cache may hold (or one table, if that is
 * more).  0: that was all; COMMIT_MORE; or -ENOMEM, with nothing taken.
 */
int l2_cache_collect (struct l2_cache *cache, struct batch *batch);

/* Hears how far those came.  If not to the end, what waits is dirty again. */
void l2_cache_done (struct l2_cache *cache, enum commit_progress progress);

#endif /* QCOW2_L2_CACHE_H */
