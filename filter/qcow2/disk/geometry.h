/* qcow2ext: sizes and indices that follow from the header.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A subcluster is the smallest part of the guest's disk that has a state of
 * its own: 1 of 32 in a cluster with extended L2 entries, and otherwise the
 * cluster itself.  So nobody else has to ask which of the two it is.
 */

#ifndef QCOW2_GEOMETRY_H
#define QCOW2_GEOMETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bits.h"
#include "disk/header.h"

struct geometry {
  unsigned version;             /* of the format: 2 or 3 */
  unsigned cluster_bits;        /* log2 of bytes */
  unsigned subcluster_bits;     /* log2 of bytes */
  unsigned l2_bits;             /* log2 of the entries of an L2 table */
  bool extended_l2;             /* L2 entries of 128 bits */
  bool has_data_file;           /* guest clusters lie in an external file... */
  bool data_file_raw;           /* ...that shows the guest's disk by itself */
};

static inline struct geometry
geometry_of_header (const struct header *h)
{
  const bool extended = header_is_extended (h);

  return (struct geometry) {
    .version = h->version,
    .cluster_bits = h->cluster_bits,
    .subcluster_bits = h->cluster_bits - (extended ? 5 : 0),
    .l2_bits = h->cluster_bits - (extended ? 4 : 3),
    .extended_l2 = extended,
    .has_data_file = header_has_data_file (h),
    /* What is in an encrypted file shows nothing by itself. */
    .data_file_raw =
      header_has_data_file (h) && header_is_raw (h) && !h->encrypted,
  };
}

/* In bytes. */
static inline uint64_t
geometry_cluster_size (const struct geometry *g)
{
  return UINT64_C (1) << g->cluster_bits;
}

static inline uint64_t
geometry_subcluster_size (const struct geometry *g)
{
  return UINT64_C (1) << g->subcluster_bits;
}

/* log2 of the bytes of the guest's disk that one L2 table describes. */
static inline unsigned
geometry_table_bits (const struct geometry *g)
{
  return g->l2_bits + g->cluster_bits;
}

/* Which L1 entry, and which entry of its L2 table, describes a guest offset. */
static inline uint32_t
geometry_l1_index (const struct geometry *g, uint64_t offset)
{
  return offset >> geometry_table_bits (g);
}

static inline uint32_t
geometry_l2_index (const struct geometry *g, uint64_t offset)
{
  return (offset >> g->cluster_bits) & ((UINT32_C (1) << g->l2_bits) - 1);
}

/* The subclusters of the cluster at a guest offset that [from, to) touches:
 * the first of them is bit 0.  The range must touch the cluster.
 */
static inline uint32_t
geometry_subcluster_mask (const struct geometry *g, uint64_t cluster,
                          uint64_t from, uint64_t to)
{
  const uint64_t end = cluster + geometry_cluster_size (g);
  const uint64_t first = from > cluster ? from - cluster : 0;
  const uint64_t last = min64 (to, end) - cluster;
  const unsigned a = first >> g->subcluster_bits;
  const unsigned b = div_round_up (last, g->subcluster_bits);

  return (UINT64_C (1) << b) - (UINT64_C (1) << a);
}

#endif /* QCOW2_GEOMETRY_H */
