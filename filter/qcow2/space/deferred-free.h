/* qcow2ext: host ranges that were let go of, until they may be used again.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   pending    the change is in memory only
 *     | a commit makes it durable
 *   committed  nothing on disk refers to the range
 *     | the epochs advance, one after the other
 *   draining   requests that began before may still look at it
 *     | they have ended
 *   released   each cluster that the range touches has one reference less
 *
 * A commit that fails makes what it took pending again.
 *
 * The lock guards the lists.  It is taken after the change lock, alone or
 * inside of it, and nothing but memory is touched under it.  Releasing takes
 * the space lock, and holds no other while it does.
 */

#ifndef QCOW2_DEFERRED_FREE_H
#define QCOW2_DEFERRED_FREE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "space/epochs.h"
#include "space/refcounts.h"

struct freed;
struct freed_list {
  struct freed *item;
  size_t count, room;
};

/* Called before a range may be used again: what is cached of it goes. */
typedef void (*deferred_free_fn) (void *opaque, uint64_t offset,
                                  uint64_t length);

struct deferred_free {
  struct refcounts *counts;
  struct epochs *epochs[2];     /* of all who may look at what is let go of */
  deferred_free_fn forget;
  void *opaque;

  pthread_mutex_t lock;
  struct freed_list pending, in_commit, committed, draining;
  bool begun[2];                /* the grace period of those that are
                                   draining, in either epochs */
  unsigned grace[2];            /* which that is */
  bool reaping;                 /* a thread has the draining list */
  _Atomic uint64_t pending_bytes; /* of the first */
  _Atomic uint64_t bytes;       /* of all */
};

void deferred_free_init (struct deferred_free *df, struct refcounts *counts,
                         struct epochs *changes, struct epochs *in_place,
                         deferred_free_fn forget, void *opaque);
void deferred_free_destroy (struct deferred_free *df);

/* Room for n more ranges, for which adding cannot fail then.  Reserving,
 * adding and taking happen under the change lock, so that a commit does not
 * take the room away in between.  0 or -ENOMEM.
 */
int deferred_free_reserve (struct deferred_free *df, size_t n);

/* A host range (bytes), of a table or of guest data, is no longer referred to
 * by what is in memory.
 */
void deferred_free_add (struct deferred_free *df, uint64_t offset,
                        uint64_t length, bool table);

/* A commit takes what is pending, and hears what became of it. */
void deferred_free_take (struct deferred_free *df);
void deferred_free_done (struct deferred_free *df, bool durable);

/* Is there nothing on its way at all? */
static inline bool
deferred_free_is_empty (const struct deferred_free *df)
{
  return atomic_load_explicit (&df->bytes, memory_order_relaxed) == 0;
}

/* Releases the ranges whose grace period is over.  Takes the space lock, which
 * is let go of while space is given back to the file system; meanwhile other
 * calls do nothing.  The caller holds no lock.
 */
void deferred_free_reap (struct deferred_free *df);

#endif /* QCOW2_DEFERRED_FREE_H */
