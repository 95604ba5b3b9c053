/* qcow2ext: L2 tables of two bits an entry.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An entry that is sound is kept in two bits and comes back as it was.  A table
 * with one that is not is kept as it is: what is wrong with it must be seen by
 * what looks it up.
 */

#include "build-config.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "map/l2-table.h"
#include "store-memory.h"

#define CLUSTER_BITS 9
#define CLUSTER (UINT64_C (1) << CLUSTER_BITS)
#define ENTRIES (CLUSTER / 8)
#define HOST (4 * CLUSTER)
#define L1_INDEX 2

static struct memory_file file;
static struct layer layer = {
  .geo = { .version = 3, .cluster_bits = CLUSTER_BITS,
           .subcluster_bits = CLUSTER_BITS, .l2_bits = CLUSTER_BITS - 3,
           .has_data_file = true },
};
static uint64_t entry[ENTRIES];

static uint64_t
guest_offset (uint32_t index)
{
  return (L1_INDEX * ENTRIES + index) << CLUSTER_BITS;
}

/* A sound entry, of four kinds. */
static uint64_t
sound (unsigned kind, uint32_t index)
{
  switch (kind % 4) {
  case 0:
    return 0;
  case 1:
    return QCOW2_L2_ZERO;
  case 2:
    return guest_offset (index) | QCOW2_COPIED;
  default:
    return guest_offset (index) | QCOW2_COPIED | QCOW2_L2_ZERO;
  }
}

/* Writes the table, and reads it; whether it is compact. */
static bool
comes_back_compact (void)
{
  struct l2_table *t;
  uint64_t bitmap;
  bool compact;

  for (uint32_t i = 0; i < ENTRIES; i++) {
    const be64 e = be64_make (entry[i]);

    memory_file_write (&file, &e, sizeof e, HOST + i * sizeof e);
  }
  CHECK (l2_table_read (&layer, L1_INDEX, HOST, &t) == 0);
  for (uint32_t i = 0; i < ENTRIES; i++)
    CHECK (l2_table_get (t, i, &bitmap) == entry[i]);
  compact = t->compact;
  CHECK (t->bytes == (compact ? ENTRIES / 4 : CLUSTER));
  /* It takes what the cache is told. */
  CHECK (malloc_usable_size (t) < l2_table_memory (t) + 64);
  l2_table_free (t);
  return compact;
}

int
main (void)
{
  layer.file = store_memory_new (&file, NULL, MEMORY_IMAGE, false);

  /* All kinds at all places, many of one and mixed. */
  for (unsigned step = 0; step < 4; step++)
    for (unsigned kind = 0; kind < 4; kind++) {
      for (uint32_t i = 0; i < ENTRIES; i++)
        entry[i] = sound (kind + i * step, i);
      CHECK (comes_back_compact ());
    }

  /* One that is not sound, among others of which all are or none is data. */
  for (unsigned kind = 0; kind < 4; kind++)
    for (uint32_t bad = 0; bad < ENTRIES; bad += 21) {
      const uint64_t offset = guest_offset (bad);
      const uint64_t unsound[] = {
        offset, offset | QCOW2_L2_ZERO, (offset + CLUSTER) | QCOW2_COPIED,
        (offset + CLUSTER) | QCOW2_COPIED | QCOW2_L2_ZERO,
        offset | QCOW2_COPIED | QCOW2_L2_COMPRESSED,
        offset | QCOW2_COPIED | 2, QCOW2_L2_ZERO | 2, 2,
        QCOW2_COPIED, QCOW2_COPIED | QCOW2_L2_ZERO,
      };

      for (size_t j = 0; j < sizeof unsound / sizeof unsound[0]; j++) {
        for (uint32_t i = 0; i < ENTRIES; i++)
          entry[i] = i == bad ? unsound[j] : sound (kind, i);
        CHECK (!comes_back_compact ());
      }
    }
  store_close (layer.file);
  memory_file_free (&file);
  return EXIT_SUCCESS;
}
