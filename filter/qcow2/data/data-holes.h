/* qcow2ext: the parts of a data file that are known to be empty.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The first write to a cluster of a data file has to know whether what
 * surrounds it there reads as zeros.  Asking the file system takes longer than
 * the write, asking a server a round trip; but a fresh file is one hole, and
 * nobody else writes to it.
 *
 * Invariant: within the ranges, the file reads as zeros wherever no entry maps
 * it and no plan is under way that holds the range lock.  It holds since what
 * is looked up is only kept if nothing was forgotten meanwhile, and all is
 * forgotten when an entry lets go of a place, when a write to a new one fails,
 * when a write in place ends that began before an entry let go of its place,
 * and when the image is idle.
 *
 * All calls are under writer->lock.
 */

#ifndef QCOW2_DATA_HOLES_H
#define QCOW2_DATA_HOLES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A few, because with many requests under way what they find comes in any
 * order, with gaps that are filled only later.
 */
#define DATA_HOLES 16

struct data_holes {
  struct {
    uint64_t start, end;        /* bytes; the same: unused */
  } range[DATA_HOLES];
  _Atomic uint64_t forgotten;   /* how many times; read without the lock */
};

/* Does the range lie within one?  The caller holds its range lock; until it lets
 * go, only writes in place can change what is there that were under way before.
 */
bool data_holes_cover (const struct data_holes *h, uint64_t start,
                       uint64_t end);

/* A hole was found, by somebody who had begun when this much was forgotten. */
void data_holes_found (struct data_holes *h, uint64_t start, uint64_t end,
                       uint64_t forgotten);

void data_holes_forget (struct data_holes *h);

#endif /* QCOW2_DATA_HOLES_H */
