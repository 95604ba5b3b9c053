/* qcow2ext: tables as they lie on disk.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * L1 tables, refcount tables and the tables of bitmaps are arrays of
 * big-endian entries, of which 0 says nothing.  How long one is, an image only
 * claims, and what it claims may lie in a hole of a sparse file.  So neither
 * memory nor time follow the claim, but what the file really holds.
 */

#ifndef QCOW2_TABLE_H
#define QCOW2_TABLE_H

#include <stdint.h>

#include "base/store.h"
#include "disk/format.h"

/* The size of so many entries, bytes.  Their number is of 64 bits, so that a
 * claim of 32 bits does not wrap around where size_t has no more.
 */
static inline uint64_t
entries_bytes (uint64_t entries)
{
  return entries * sizeof (be64);
}

/* Checks that a table of count entries of size bytes each, of at most max
 * bytes, may lie at offset: aligned to a cluster and within int64_t.  "what"
 * names the table in the message.  Returns 0 or -EINVAL
 * (reported).
 */
int table_check_place (const struct store *store, unsigned cluster_bits,
                       const char *what, uint64_t offset, uint64_t count,
                       uint64_t size, uint64_t max);

/* Reads a table of so many entries at offset (bytes) of the file.  What lies
 * past the end of the file reads as 0; pages that hold nothing take no memory.
 * Returns 0 and *table, which the caller frees, or -errno (not reported).
 */
int table_read (struct store *file, uint64_t offset, uint64_t entries,
                be64 **table);

/* Calls fn for each entry that is not 0, in order, until it returns anything
 * else than 0.  Does not read what lies in holes of the file behind a part of
 * the table that is empty.  Returns 0, -errno (not reported) or what fn
 * returned.
 */
typedef int (*table_entry_fn) (void *opaque, uint64_t index, uint64_t entry);
int table_walk (struct store *file, uint64_t offset, uint64_t entries,
                table_entry_fn fn, void *opaque);

#endif /* QCOW2_TABLE_H */
