/* qcow2ext: what an L2 entry means, and what it becomes.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Pure functions of an entry, its bitmap of subclusters and the geometry: no
 * image, no I/O, no lock.  Without extended L2 the bitmap is 0 and stays it.
 *
 * Spec: "Standard Cluster Descriptor", "Compressed Clusters Descriptor",
 * "Extended L2 Entries".
 */

#ifndef QCOW2_L2_ENTRY_H
#define QCOW2_L2_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/geometry.h"

enum run_type {
  RUN_UNALLOCATED,              /* the backing file's, or zeros */
  RUN_ZERO,                     /* zeros, whatever lies below */
  RUN_DATA,                     /* at a host offset */
  RUN_COMPRESSED,               /* part of one compressed cluster */
  RUN_INVALID,                  /* cannot be read: error, why */
};

/* A guest range of which one thing is true. */
struct run {
  enum run_type type;
  uint64_t length;              /* bytes, > 0 */
  uint64_t host;                /* DATA: of the first byte, in the file of the
                                   guest's clusters.  COMPRESSED: of the
                                   compressed data, in the image file */
  bool copied;                  /* DATA: may be written in place */
  uint32_t compressed_size;     /* COMPRESSED: bytes to look at, at most */
  int error;                    /* INVALID: a negative errno */
  const char *why;              /* INVALID: what is wrong, or NULL */
};

/* Is the cluster of an entry that is not compressed allocated?  Offset 0 is a
 * place only in an external data file, where the copied flag tells it from
 * "no place".
 */
static inline bool
l2_entry_is_allocated (const struct geometry *g, uint64_t entry)
{
  return (entry & QCOW2_L2_OFFSET)
    || (g->has_data_file && (entry & QCOW2_COPIED));
}

/* Interprets the entry of the cluster that holds guest offset.  The run
 * begins there and ends with the cluster, or with the last of its subclusters
 * that say the same.  *run is all 0 before.  file_size is the image file's, in
 * bytes.
 */
void l2_entry_classify (const struct geometry *g, uint64_t file_size,
                        uint64_t entry, uint64_t bitmap, uint64_t offset,
                        struct run *run);

/* The range of compressed data in the image file, in bytes. */
void l2_entry_compressed_range (const struct geometry *g, uint64_t entry,
                                uint64_t *offset, uint32_t *size);

/* What an entry refers to in the image file (bytes), each cluster of which
 * holds a reference for it.  Returns false if that is nothing.
 */
bool l2_entry_refers_to (const struct geometry *g, uint64_t entry,
                         uint64_t *offset, uint64_t *length);

/* Has the cluster of an entry a place that may be written to?  That in an
 * external data file has one even while it is unallocated.
 */
bool l2_entry_writable_in_place (const struct geometry *g, uint64_t file_size,
                                 uint64_t entry);

/* Makes an entry refer to the cluster at host, in which the subclusters of
 * the mask (all, without extended L2) are data from now on.
 */
void l2_entry_make_data (const struct geometry *g, uint64_t host,
                         uint32_t mask, uint64_t *entry, uint64_t *bitmap);

/* Makes an entry refer to size bytes of compressed data at host, of which the
 * last must lie below l2_entry_compressed_limit.
 */
void l2_entry_make_compressed (const struct geometry *g, uint64_t host,
                               uint32_t size, uint64_t *entry,
                               uint64_t *bitmap);

/* The offset in the image file that compressed data must end before. */
uint64_t l2_entry_compressed_limit (const struct geometry *g);

/* Makes the subclusters of the mask (all, without extended L2) read as zeros.
 * keep_place: an allocated cluster stays it.  nothing_below: what is
 * unallocated reads as zeros.  Returns false, with the entry unusable, if the
 * format has no flag for that, so that zeros have to be written.
 */
bool l2_entry_make_zero (const struct geometry *g, uint32_t mask,
                         bool keep_place, bool nothing_below,
                         uint64_t *entry, uint64_t *bitmap);

#endif /* QCOW2_L2_ENTRY_H */
