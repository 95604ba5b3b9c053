/* qcow2ext: from guest ranges to what the tables say of them.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_MAPPING_H
#define QCOW2_MAPPING_H

#include <stdint.h>

#include "image/image.h"

enum run_type {
  RUN_UNALLOCATED,              /* the backing file's, or zeros */
  RUN_ZERO,                     /* zeros, whatever lies below */
  RUN_DATA,                     /* at host in image->data */
  RUN_COMPRESSED,               /* part of one compressed cluster */
  RUN_INVALID,                  /* cannot be read: -error, why */
};

/* A guest range of which one thing is true. */
struct run {
  enum run_type type;
  uint64_t length;              /* bytes, > 0 */
  uint64_t host;                /* DATA: of the first byte, in image->data.
                                   COMPRESSED: of the compressed data */
  bool copied;                  /* DATA: may be written in place */
  uint32_t compressed_size;     /* COMPRESSED: bytes to look at, at most */
  int error;                    /* INVALID: a negative errno */
  const char *why;              /* INVALID: what is wrong, or NULL */
};

/* Looks up the longest run that starts at guest offset, of at most max (> 0)
 * bytes; offset + max must lie within image->size.  A run may be shorter
 * than the truth only at a multiple of a cluster where something that cannot
 * be merged (invalid, compressed) begins or ends.  Loads tables as needed.
 *
 * Spec: "Cluster mapping", "Extended L2 Entries".
 */
void mapping_lookup (struct layer *layer, uint64_t offset, uint64_t max,
                     struct run *run);

/* What the tables say of one cluster: the L2 entry with its bitmap (0 without
 * extended L2), 0 where there is no L2 table; and the entry interpreted for
 * the unit (cluster or subcluster) that holds guest offset, as by
 * mapping_lookup but for the whole of that unit.  Returns 0, or a negative
 * errno (reported) if the cluster is not sound.
 */
struct mapping_entry {
  uint64_t entry, bitmap;
  struct run run;
};
int mapping_get_entry (struct layer *layer, uint64_t offset,
                       struct mapping_entry *e);

/* The host range of compressed data that an entry describes, in bytes. */
void mapping_compressed_range (const struct layer *layer, uint64_t entry,
                               uint64_t *host, uint32_t *size);

/* Reports why an invalid run at guest offset cannot be read (not too often)
 * and returns its error.
 */
int mapping_report (struct layer *layer, uint64_t offset,
                    const struct run *run);

#endif /* QCOW2_MAPPING_H */
