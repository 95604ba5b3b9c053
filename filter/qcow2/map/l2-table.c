/* qcow2ext: one L2 table in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "map/l2-table.h"

/* Can tables of the layer be compact, if all entries are sound? */
static bool
can_be_compact (const struct layer *layer)
{
  return layer->geo.has_data_file && !layer->geo.extended_l2;
}

static size_t
compact_size (const struct layer *layer)
{
  return ((size_t) 1 << layer->geo.l2_bits) / 4;
}

static size_t
sectors (const struct l2_table *t)
{
  return layer_cluster_size (t->layer) / QCOW2_SECTOR_SIZE;
}

struct l2_table *
l2_table_new (struct layer *layer, uint32_t l1_index, uint64_t host)
{
  const bool compact = can_be_compact (layer);
  const size_t bytes =
    compact ? compact_size (layer) : layer_cluster_size (layer);
  struct l2_table *t = calloc (1, sizeof *t + bytes);

  if (t == NULL)
    return NULL;
  t->layer = layer;
  t->l1_index = l1_index;
  t->host = host;
  t->compact = compact;
  t->bytes = bytes;
  t->is_new = true;
  atomic_init (&t->used, true);
  if (l2_table_prepare (t) < 0) {
    free (t);
    return NULL;
  }
  return t;
}

void
l2_table_free (struct l2_table *t)
{
  free (t->dirty);
  free (t);
}

/* --- reading --- */

/* The state that a cluster's entry stands for; -1: none of the sound ones. */
static int
compact_entry (uint64_t entry, uint64_t offset)
{
  if (entry == (offset | QCOW2_COPIED))
    return L2_DATA;
  if (entry == 0)
    return L2_UNALLOCATED;
  if (entry == QCOW2_L2_ZERO)
    return L2_ZERO;
  if (entry == (offset | QCOW2_COPIED | QCOW2_L2_ZERO))
    return L2_ZERO_ALLOCATED;
  return -1;
}

/* Are the four entries, of clusters from offset on, all data?  So are most in
 * a full or preallocated image, of which there can be millions to read.
 */
static bool
four_data (const struct layer *layer, const be64 *entries, uint64_t offset)
{
  const uint64_t first = offset | QCOW2_COPIED;
  const uint64_t size = layer_cluster_size (layer);

  return ((be64_get (entries[0]) ^ first)
          | (be64_get (entries[1]) ^ (first + size))
          | (be64_get (entries[2]) ^ (first + 2 * size))
          | (be64_get (entries[3]) ^ (first + 3 * size))) == 0;
}

/* Turns a standard table of an image with an external data file into two
 * bits an entry.  Returns false if an entry is not one of the four sound
 * ones.
 */
static bool
compact_table (const struct layer *layer, uint32_t l1_index,
               const be64 *entries, uint8_t *states)
{
  const uint32_t n = UINT32_C (1) << layer->geo.l2_bits;
  uint64_t offset =
    (uint64_t) l1_index << (layer->geo.l2_bits + layer->geo.cluster_bits);

  for (uint32_t i = 0; i < n; i += 4) {
    if (four_data (layer, entries + i, offset)) {
      states[i / 4] = L2_DATA * 0x55;
      offset += 4 * layer_cluster_size (layer);
      continue;
    }
    for (unsigned j = 0; j < 4; j++, offset += layer_cluster_size (layer)) {
      const int state = compact_entry (be64_get (entries[i + j]), offset);

      if (state < 0)
        return false;
      states[i / 4] |= state << (j * 2);
    }
  }
  return true;
}

/* Reads a table into two bits an entry; *result is NULL if it has an entry that
 * is not sound.
 */
static int
read_compact (struct layer *layer, uint32_t l1_index, uint64_t offset,
              struct l2_table **result)
{
  const size_t size = layer_cluster_size (layer);
  CLEANUP_FREE be64 *entries = malloc (size);
  struct l2_table *t = calloc (1, sizeof *t + compact_size (layer));
  int r;

  *result = NULL;
  r = entries && t ? store_pread (layer->file, entries, size, offset)
                   : -ENOMEM;
  if (r == 0
      && compact_table (layer, l1_index, entries, (uint8_t *) t->payload)) {
    t->compact = true;
    t->bytes = compact_size (layer);
    *result = t;
    return 0;
  }
  free (t);
  return r;
}

static int
read_full (struct layer *layer, uint64_t offset, struct l2_table **result)
{
  const size_t size = layer_cluster_size (layer);
  struct l2_table *t = malloc (sizeof *t + size);
  int r;

  if (t == NULL)
    return -ENOMEM;
  memset (t, 0, sizeof *t);
  t->bytes = size;
  r = store_pread (layer->file, t->payload, size, offset);
  if (r < 0) {
    free (t);
    return r;
  }
  *result = t;
  return 0;
}

int
l2_table_read (struct layer *layer, uint32_t l1_index, uint64_t offset,
               struct l2_table **result)
{
  struct l2_table *t = NULL;
  int r;

  if (can_be_compact (layer)
      && (r = read_compact (layer, l1_index, offset, &t)) < 0)
    return r;
  if (t == NULL && (r = read_full (layer, offset, &t)) < 0)
    return r;
  t->layer = layer;
  t->l1_index = l1_index;
  t->host = offset;
  atomic_init (&t->used, true);
  *result = t;
  return 0;
}

/* --- changing --- */

int
l2_table_prepare (struct l2_table *t)
{
  if (t->dirty == NULL)
    t->dirty = calloc (bit_words (sectors (t)), sizeof *t->dirty);
  return t->dirty ? 0 : -ENOMEM;
}

void
l2_table_set (struct l2_table *t, uint32_t index, uint64_t entry,
              uint64_t bitmap)
{
  const size_t entry_size = t->layer->geo.extended_l2 ? 16 : 8;
  const size_t sector = index * entry_size / QCOW2_SECTOR_SIZE;

  set_bit (t->dirty, sector);
  if (t->compact) {
    uint8_t *states = (uint8_t *) t->payload;
    const unsigned shift = index % 4 * 2;
    unsigned state = L2_UNALLOCATED;

    if (entry & QCOW2_COPIED)
      state = entry & QCOW2_L2_ZERO ? L2_ZERO_ALLOCATED : L2_DATA;
    else if (entry & QCOW2_L2_ZERO)
      state = L2_ZERO;
    states[index / 4] = (states[index / 4] & ~(3 << shift)) | state << shift;
  }
  else if (t->layer->geo.extended_l2) {
    struct qcow2_extended_entry *e = (void *) t->payload;

    e[index].entry = be64_make (entry);
    e[index].bitmap = be64_make (bitmap);
  }
  else
    ((be64 *) t->payload)[index] = be64_make (entry);
}

uint32_t
l2_table_same (const struct l2_table *t, uint32_t index, uint32_t max)
{
  const uint32_t end = index + max;
  const uint64_t low = UINT64_C (0x5555555555555555);
  const unsigned per_word = 32;
  const unsigned state =
    le64toh (t->payload[index / per_word]) >> (index % per_word * 2) & 3;
  const uint64_t all = state * low;
  uint32_t i = index;

  while (i < end) {
    const uint64_t other = le64toh (t->payload[i / per_word]) ^ all;
    /* The low bit of each entry that differs; of zeros, only in that bit. */
    const uint64_t differs =
      ((state & L2_ZERO ? other : other | other >> 1) & low)
      >> (i % per_word * 2);

    if (differs)
      return i + __builtin_ctzll (differs) / 2 - index;
    i = (i / per_word + 1) * per_word;
  }
  return max;
}

void
l2_table_encode (const struct l2_table *t, size_t sector, size_t count,
                 void *buf)
{
  if (!t->compact)
    memcpy (buf, (const uint8_t *) t->payload + sector * QCOW2_SECTOR_SIZE,
            count * QCOW2_SECTOR_SIZE);
  else {
    const uint32_t per_sector = QCOW2_SECTOR_SIZE / sizeof (be64);
    be64 *out = buf;

    for (uint32_t i = 0; i < count * per_sector; i++) {
      uint64_t bitmap;

      out[i] = be64_make (l2_table_get (t, sector * per_sector + i,
                                        &bitmap));
    }
  }
}

/* --- writing --- */

int
l2_table_collect (const struct l2_table *t, struct batch *batch)
{
  size_t s = 0, n;
  void *data;
  int r;

  if (t->is_new) {
    r = batch_add (batch, BATCH_NEW, t->host,
                   sectors (t) * QCOW2_SECTOR_SIZE, &data);
    if (r == 0)
      l2_table_encode (t, 0, sectors (t), data);
    return r;
  }
  for (; (n = next_set_run (t->dirty, sectors (t), &s)) > 0; s += n) {
    r = batch_add (batch, BATCH_POINTERS, t->host + s * QCOW2_SECTOR_SIZE,
                   n * QCOW2_SECTOR_SIZE, &data);
    if (r < 0)
      return r;
    l2_table_encode (t, s, n, data);
  }
  return 0;
}
