/* qcow2ext: one layer of a chain.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_LAYER_H
#define QCOW2_LAYER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/report.h"
#include "base/store.h"
#include "disk/format.h"
#include "disk/geometry.h"
#include "disk/header.h"

struct bitmap_list;
struct crew;
struct decoded_cache;
struct l2_table;
struct snapshot_list;
struct l2_cache;
struct writer;

/* A qcow2 image, or a raw file at the end of a chain.  All of it is set when
 * the layer is opened and constant from then on, but for file_size, l2 and,
 * while the layer is written to, l1, which change under the table cache's
 * lock.
 *
 * Metadata lies in file and the guest's clusters in clusters: these are two
 * stores to all that use them, although without an external data file both
 * may be one.
 */
struct layer {
  enum image_format format;
  struct store *file;           /* the image file: metadata, compressed
                                   clusters */
  struct store *data_file;      /* the external data file, or NULL */
  struct store *clusters;       /* the guest's clusters: "host offset" is in
                                   here: one of the two, or, in an encrypted
                                   image, a store in front of that */
  _Atomic uint64_t file_size;   /* of file, bytes; grows with what is
                                   allocated past its end */
  uint64_t size;                /* what the guest sees, bytes */
  struct layer *backing;        /* NULL: none */

  /* The rest is for IMAGE_QCOW2. */
  struct header header;
  struct geometry geo;

  be64 *l1;                     /* the active table, or a snapshot's */
  uint32_t l1_entries;
  struct l2_table **l2;         /* l1_entries slots, NULL: not cached */

  struct snapshot_list *snapshots; /* NULL: none */
  struct bitmap_list *bitmaps;  /* NULL: none */
  _Atomic uint32_t last_loaded; /* of the L2 tables that were looked up */
  struct l2_cache *tables;      /* shared by the layers of a chain */
  struct decoded_cache *decoded; /* shared by all that is open */
  uint64_t content;             /* the number for what is decoded from file:
                                   layers of the same file may have the same */
  struct writer *writer;        /* NULL: this layer is only read */
  struct crew *crew;            /* helps with (de)compressing; NULL: none */
  struct crew *waiters;         /* helps with waiting for a file that is far
                                   away; NULL: none */
  struct report_limit limit;
};

/* Sizes are in bytes. */
static inline uint64_t
layer_file_size (const struct layer *layer)
{
  return atomic_load_explicit (&layer->file_size, memory_order_relaxed);
}

static inline uint64_t
layer_cluster_size (const struct layer *layer)
{
  return geometry_cluster_size (&layer->geo);
}

static inline uint64_t
layer_subcluster_size (const struct layer *layer)
{
  return geometry_subcluster_size (&layer->geo);
}

/* Which entries describe a guest offset. */
static inline uint32_t
layer_l1_index (const struct layer *layer, uint64_t offset)
{
  return geometry_l1_index (&layer->geo, offset);
}

static inline uint32_t
layer_l2_index (const struct layer *layer, uint64_t offset)
{
  return geometry_l2_index (&layer->geo, offset);
}

/* How much of the guest's disk one L2 table describes, and how much of that
 * lies behind a guest offset.
 */
static inline uint64_t
layer_table_reach (const struct layer *layer)
{
  return UINT64_C (1) << geometry_table_bits (&layer->geo);
}

static inline uint64_t
layer_left_in_table (const struct layer *layer, uint64_t offset)
{
  const uint64_t reach = layer_table_reach (layer);

  return reach - (offset & (reach - 1));
}

/* Does a guest offset read as zeros where this layer has nothing? */
static inline bool
layer_nothing_below (const struct layer *layer, uint64_t offset)
{
  return layer->backing == NULL || offset >= layer->backing->size;
}

/* An entry of the L1 table, and where the L2 table is that it refers to (0:
 * nowhere).
 */
static inline uint64_t
layer_l1_entry (const struct layer *layer, uint32_t l1_index)
{
  const be64 e = {
    __atomic_load_n (&layer->l1[l1_index].raw, __ATOMIC_RELAXED)
  };

  return be64_get (e);
}

static inline uint64_t
layer_l2_offset (const struct layer *layer, uint32_t l1_index)
{
  return layer_l1_entry (layer, l1_index) & QCOW2_L1_OFFSET;
}

#endif /* QCOW2_LAYER_H */
