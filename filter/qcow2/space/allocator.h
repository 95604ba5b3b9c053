/* qcow2ext: takes host clusters, and gives them back.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * All functions but allocator_take take the space lock (refcounts.h)
 * themselves.  Offsets are in bytes of the image file.
 */

#ifndef QCOW2_ALLOCATOR_H
#define QCOW2_ALLOCATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "space/refcounts.h"

/* Allocates a run of 1 to want clusters, with a count of 1.  *got clusters;
 * *zero: they are known to read as zeros.  -ENOSPC if the file cannot grow and
 * has no free cluster, -EIO if writing has ended.
 */
int allocator_alloc (struct refcounts *rc, uint64_t want, uint64_t *offset,
                     uint64_t *got, bool *zero);

/* The same, with the space lock held, which is not given up.  -EAGAIN, with
 * nothing changed: refcount blocks are being made ahead; to be called again
 * after refcounts_wait_made.
 */
int allocator_take (struct refcounts *rc, uint64_t want, uint64_t *offset,
                    uint64_t *got, bool *zero);

/* Allocates one cluster for metadata and writes content (NULL: zeros) to it,
 * with no lock held.  The cluster is in the metadata map from then on.
 */
int allocator_alloc_table (struct refcounts *rc, const void *content,
                           uint64_t *offset);

/* Take back an allocation that nothing refers to, in memory or on disk. */
void allocator_give_back (struct refcounts *rc, uint64_t offset,
                          uint64_t clusters);
void allocator_give_back_table (struct refcounts *rc, uint64_t offset);

/* Looks whether a file that cannot grow by itself (a device) has been enlarged,
 * and returns whether it has: there are new clusters then.
 */
bool allocator_look_again (struct refcounts *rc);

/* Finds the last free cluster of a file that cannot grow, without taking it. */
int allocator_last_free (struct refcounts *rc, uint64_t *offset);

/* Gives back the end of the file that this session grew and does not use: down
 * to the size it had at the start, and no further.  Resizes the file with the
 * space lock held, so that nothing is allocated there meanwhile.
 */
int allocator_trim_tail (struct refcounts *rc);

#endif /* QCOW2_ALLOCATOR_H */
