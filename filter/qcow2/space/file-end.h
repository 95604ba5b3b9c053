/* qcow2ext: where the image file ends, and whether it can grow.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * All of it is guarded by the space lock (refcounts.h), but for what is
 * atomic; can_grow is set before the first change and constant from then on.
 */

#ifndef QCOW2_FILE_END_H
#define QCOW2_FILE_END_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk/format.h"

struct file_end {
  unsigned cluster_bits;
  _Atomic uint64_t *file_size;  /* bytes; what readers compare with */
  bool can_grow;                /* the image file can be resized */
  uint64_t initial_bytes;       /* of the file when the session began */
  uint64_t initial_clusters;    /* the same */
  uint64_t used_end;            /* clusters in use or in the file initially */
  uint64_t zero_from;           /* free clusters from here on read as zeros */
};

static inline uint64_t
file_end_size (const struct file_end *end)
{
  return atomic_load_explicit (end->file_size, memory_order_relaxed);
}

/* Clusters from here on do not exist and cannot be made. */
static inline uint64_t
file_end_limit (const struct file_end *end)
{
  if (end->can_grow)
    return (QCOW2_L2_OFFSET >> end->cluster_bits) + 1;
  return file_end_size (end) >> end->cluster_bits;
}

/* As the file is now, at the beginning of a session; bytes. */
static inline void
file_end_begin (struct file_end *end, uint64_t size)
{
  atomic_store_explicit (end->file_size, size, memory_order_relaxed);
  end->initial_bytes = size;
  end->initial_clusters = end->used_end = end->zero_from =
    (size + (UINT64_C (1) << end->cluster_bits) - 1) >> end->cluster_bits;
}

/* The file reaches at least to this cluster from now on. */
static inline void
file_end_extend (struct file_end *end, uint64_t cluster)
{
  const uint64_t size = cluster << end->cluster_bits;

  if (end->used_end < cluster)
    end->used_end = cluster;
  if (end->zero_from < cluster)
    end->zero_from = cluster;
  if (file_end_size (end) < size)
    atomic_store_explicit (end->file_size, size, memory_order_relaxed);
}

/* The same for clusters past others that are not in use and read as zeros. */
static inline void
file_end_include (struct file_end *end, uint64_t cluster)
{
  const uint64_t zero_from = end->zero_from;

  file_end_extend (end, cluster);
  end->zero_from = zero_from;
}

/* A file that cannot grow by itself has this size now, in bytes.  Returns
 * whether that is more than before.
 */
static inline bool
file_end_enlarged (struct file_end *end, uint64_t size)
{
  if (size <= file_end_size (end))
    return false;
  atomic_store_explicit (end->file_size, size, memory_order_relaxed);
  return true;
}

/* The file was cut off there. */
static inline void
file_end_cut (struct file_end *end, uint64_t cluster)
{
  end->used_end = end->zero_from = cluster;
  atomic_store_explicit (end->file_size, cluster << end->cluster_bits,
                         memory_order_relaxed);
}

#endif /* QCOW2_FILE_END_H */
