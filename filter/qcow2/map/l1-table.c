/* qcow2ext: changes of the L1 table.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "map/l1-table.h"

#define PER_SECTOR (QCOW2_SECTOR_SIZE / sizeof (be64))

static size_t
table_bytes (const struct l1_table *l1)
{
  return (size_t) l1->layer->l1_entries * sizeof (be64);
}

static size_t
sectors (const struct l1_table *l1)
{
  return (table_bytes (l1) + QCOW2_SECTOR_SIZE - 1) / QCOW2_SECTOR_SIZE;
}

int
l1_table_init (struct l1_table *l1, struct layer *layer)
{
  *l1 = (struct l1_table) { .layer = layer };
  l1->dirty = calloc (bit_words (sectors (l1)) + 1, sizeof *l1->dirty);
  return l1->dirty ? 0 : -ENOMEM;
}

void
l1_table_destroy (struct l1_table *l1)
{
  free (l1->dirty);
}

void
l1_table_set (struct l1_table *l1, uint32_t index, uint64_t host)
{
  __atomic_store_n (&l1->layer->l1[index].raw,
                    be64_make (host | QCOW2_COPIED).raw, __ATOMIC_RELAXED);
  set_bit (l1->dirty, index / PER_SECTOR);
  l1->is_dirty = true;
}

int
l1_table_collect (const struct l1_table *l1, struct batch *batch)
{
  const size_t bytes = table_bytes (l1);
  size_t s = 0, n;

  if (!l1->is_dirty)
    return 0;
  for (; (n = next_set_run (l1->dirty, sectors (l1), &s)) > 0; s += n) {
    const size_t start = s * QCOW2_SECTOR_SIZE;
    const size_t length = min64 (n * QCOW2_SECTOR_SIZE, bytes - start);
    void *data;
    const int r = batch_add (batch, BATCH_POINTERS,
                             l1->layer->header.l1_offset + start, length,
                             &data);

    if (r < 0)
      return r;
    memcpy (data, (const uint8_t *) l1->layer->l1 + start, length);
  }
  return 0;
}

void
l1_table_clean (struct l1_table *l1)
{
  l1->in_commit = l1->is_dirty;
  l1->is_dirty = false;
  memset (l1->dirty, 0, bit_words (sectors (l1)) * sizeof *l1->dirty);
}

/* What did not reach the disk is written as a whole by the next commit. */
void
l1_table_done (struct l1_table *l1, enum commit_progress progress)
{
  if (l1->in_commit && progress != COMMIT_ALL) {
    for (size_t s = 0; s < sectors (l1); s++)
      set_bit (l1->dirty, s);
    l1->is_dirty = true;
  }
  l1->in_commit = false;
}
