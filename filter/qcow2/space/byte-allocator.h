/* qcow2ext: takes parts of host clusters, for compressed data.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Compressed clusters lie in the image file one behind the other, wherever a
 * host cluster begins or ends.  Each holds a reference to every host cluster
 * that it touches.  The cursor says where in the host cluster that was begun
 * last the next one may go.
 *
 * Invariants:
 *
 *   - What is allocated by one call, and is contiguous, is to be written in one
 *     request.  That begins on a sector, so that no sector which holds
 *     compressed data of an earlier one is ever written again: torn by a power
 *     cut, it would take that with it.
 *   - The cursor is in a cluster whose count is at least 1.  It is closed, for
 *     good, before a count there is lowered (refcounts_close_cursor).
 */

#ifndef QCOW2_BYTE_ALLOCATOR_H
#define QCOW2_BYTE_ALLOCATOR_H

#include <stddef.h>
#include <stdint.h>

#include "space/refcounts.h"

/* A piece of compressed data in the image file; bytes. */
struct packed {
  uint64_t host;
  uint32_t size;                /* less than a cluster */
};

/* Allocates room for the first *got of count (> 0) pieces whose sizes are
 * given.  Takes the space lock.  0, or -errno if there is not even room for
 * one: -ENOSPC as allocator_alloc.
 */
int byte_allocator_alloc (struct refcounts *rc, struct packed *piece,
                          size_t count, size_t *got);

/* Takes back pieces that nothing refers to. */
void byte_allocator_give_back (struct refcounts *rc,
                               const struct packed *piece, size_t count);

#endif /* QCOW2_BYTE_ALLOCATOR_H */
