/* qcow2ext: the parts of a data file that are known to be empty.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The first write to a cluster of a data file has to know whether what
 * surrounds it there reads as zeros.  Asking the file system takes longer than
 * the write, asking a server a round trip; but a fresh file is one hole, and
 * nobody else writes to it.
 *
 * Invariant: within the ranges, the file reads as zeros wherever no entry maps
 * it and no request holds the range lock.  It holds since what is looked up is
 * only kept if nothing was forgotten meanwhile, and all is forgotten when an
 * entry lets go of a place, when a write to a new one fails, when a write in
 * place ends that began before an entry let go of its place, and when the
 * image is idle.
 *
 * The lock is taken after all others, and held during no I/O.
 */

#ifndef QCOW2_KNOWN_HOLES_H
#define QCOW2_KNOWN_HOLES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>


/* A few, because with many requests under way what they find comes in any
 * order, with gaps that are filled only later.
 */
#define KNOWN_HOLES 16

struct known_holes {
  pthread_mutex_t lock;
  struct {
    uint64_t start, end;        /* bytes; the same: unused */
  } range[KNOWN_HOLES];
  _Atomic uint64_t generation;  /* how many times all was forgotten */
};

void known_holes_init (struct known_holes *h);
void known_holes_destroy (struct known_holes *h);

/* Does the range lie within one?  The caller holds its range lock; until it
 * lets go, only writes in place can change what is there that were under way
 * before.  *generation is for known_holes_add.
 */
bool known_holes_cover (struct known_holes *h, uint64_t start, uint64_t end,
                        uint64_t *generation);

/* A hole was found by a request that had looked at this generation. */
void known_holes_add (struct known_holes *h, uint64_t start, uint64_t end,
                      uint64_t generation);

void known_holes_forget (struct known_holes *h);

/* A write in place has ended.  The generation is that of before its look-up.
 * If entries have let go of their places since, this may have been one, and a
 * request may have found a hole there before it was written to.
 */
static inline void
known_holes_after_write (struct known_holes *h, uint64_t generation)
{
  /* Adding 0 instead of loading: of this and the raise in
   * known_holes_forget, one comes first.  Either the raise does, and is seen
   * here; or the thread that raises it, and then looks for holes, sees the
   * data.  With a load both could miss each other, and the cluster would count
   * as a hole.
   */
  if (atomic_fetch_add (&h->generation, 0) != generation)
    known_holes_forget (h);
}

#endif /* QCOW2_KNOWN_HOLES_H */
