/* qcow2ext: which host clusters hold metadata.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Images with many snapshots, whose tables are apart from each other and from
 * other metadata, or not.
 */

#include "build-config.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "base/report.h"
#include "space/metadata-map.h"
#include "store-memory.h"

#define CLUSTER_BITS 9
#define CLUSTER (UINT64_C (1) << CLUSTER_BITS)
#define SNAPSHOTS 40
#define L1_ENTRIES 100          /* two clusters of them */

/* Clusters. */
enum { HEADER, REFTABLE, L1, SNAPSHOT_TABLE = L1 + 3, FIRST = 10,
       END = FIRST + 3 * SNAPSHOTS };

static struct memory_file file;
static struct memory_log record;
static unsigned reads;
static struct store *store;
static struct snapshot_list *list;

static void
count_reads (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  reads += before && op->kind == MEMORY_READ;
}

static void
quiet_sink (enum report_level level, const char *message)
{
  (void) level, (void) message;
}

/* Each structure is followed by one cluster that belongs to none. */
static bool
is_metadata (uint64_t cluster)
{
  switch (cluster) {
  case HEADER:
  case REFTABLE:
  case L1:
  case L1 + 1:
  case SNAPSHOT_TABLE:
    return true;
  default:
    return cluster >= FIRST && cluster < END && (cluster - FIRST) % 3 != 2;
  }
}

static void
lay_out (void)
{
  for (size_t i = 0; i < SNAPSHOTS; i++)
    list->snapshot[i] = (struct snapshot) {
      /* Not in the order in which they lie. */
      .l1_offset = (FIRST + i * 7 % SNAPSHOTS * 3) * CLUSTER,
      .l1_entries = L1_ENTRIES,
    };
}

/* Builds the map, in memory that held something else. */
static int
build (struct metadata_map *map, struct header *h)
{
  struct health health = { .file = store, .header = h };
  const struct metadata_source source = {
    .file = store, .file_size = file.size, .header = h, .snapshots = list,
  };
  int r;

  *h = (struct header) {
    .version = 3, .cluster_bits = CLUSTER_BITS, .refcount_order = 4,
    .l1_offset = L1 * CLUSTER, .l1_entries = L1_ENTRIES,
    .reftable_offset = REFTABLE * CLUSTER, .reftable_clusters = 1,
    .snapshots_offset = SNAPSHOT_TABLE * CLUSTER, .nb_snapshots = SNAPSHOTS,
  };
  memset (map, 0xa5, sizeof *map);
  metadata_map_init (map, CLUSTER_BITS);
  CHECK (!metadata_map_overlaps (map, 0, file.size));
  /* No image can know where in a set its clusters are. */
  CHECK (map->single.key != 0 && map->snapshot_tables.key != 0);
  r = metadata_map_build (map, &source, &health);
  CHECK (health_ok (&health) == (r == 0));
  return r;
}

static void
test_many (void)
{
  struct metadata_map map;
  struct header h;

  lay_out ();
  CHECK (build (&map, &h) == 0);
  for (uint64_t c = 0; c < END + 10; c++) {
    CHECK (metadata_map_overlaps (&map, c * CLUSTER, CLUSTER)
           == is_metadata (c));
    CHECK (metadata_map_overlaps (&map, c * CLUSTER + 9, CLUSTER)
           == (is_metadata (c) || is_metadata (c + 1)));
  }
  metadata_map_destroy (&map);
}

/* The L1 table of a snapshot may be the last thing in the file, and no more. */
static void
test_end (uint64_t behind, bool sound)
{
  struct metadata_map map;
  struct header h;

  lay_out ();
  list->snapshot[0].l1_offset = file.size - 2 * CLUSTER + behind;
  list->snapshot[0].l1_entries = 2 * CLUSTER / sizeof (be64);
  CHECK ((build (&map, &h) == 0) == sound);
  CHECK (!(h.incompatible & QCOW2_INCOMPAT_CORRUPT) == sound);
  metadata_map_destroy (&map);
}

/* The L1 table of a snapshot lies at a cluster where other metadata is.  That is
 * found without a look at any table, but where one of these is the other.
 */
static void
test_overlap (uint64_t cluster)
{
  struct metadata_map map;
  struct header h;

  lay_out ();
  list->snapshot[SNAPSHOTS / 2].l1_offset = cluster * CLUSTER;
  list->snapshot[SNAPSHOTS / 2].l1_entries = 1;
  reads = 0;
  CHECK (build (&map, &h) < 0);
  CHECK (reads == 0 || cluster == REFTABLE);
  CHECK (h.incompatible & QCOW2_INCOMPAT_CORRUPT);
  metadata_map_destroy (&map);
}

/* Sets entry number i of an L1 table. */
static void
set_l1 (uint64_t offset, size_t i, uint64_t cluster)
{
  const be64 entry = be64_make (cluster * CLUSTER);

  memory_file_write (&file, &entry, sizeof entry, offset + i * sizeof entry);
}

/* Snapshots share an L2 table with each other and with the disk, but with
 * nothing else.
 */
static void
test_l2 (uint64_t cluster)
{
  struct metadata_map map;
  struct header h;

  lay_out ();
  for (size_t i = 0; i < 3; i++)
    set_l1 (list->snapshot[i].l1_offset, 5, cluster);
  set_l1 (L1 * CLUSTER, 5, SNAPSHOT_TABLE + 1);
  if (is_metadata (cluster)) {
    CHECK (build (&map, &h) < 0);
    CHECK (h.incompatible & QCOW2_INCOMPAT_CORRUPT);
  }
  else {
    CHECK (build (&map, &h) == 0);
    CHECK (metadata_map_is_snapshot_table (&map, cluster));
    CHECK (!metadata_map_is_snapshot_table (&map, cluster + 1));
    CHECK (metadata_map_overlaps (&map, cluster * CLUSTER, 1));
    CHECK (metadata_map_overlaps (&map, (SNAPSHOT_TABLE + 1) * CLUSTER, 1));
  }
  metadata_map_destroy (&map);
  memory_file_resize (&file, 0);
  memory_file_resize (&file, (END + 20) * CLUSTER);
}

int
main (void)
{
  report_set_sink (quiet_sink);
  list = calloc (1, sizeof *list + SNAPSHOTS * sizeof list->snapshot[0]);
  CHECK (list != NULL);
  list->count = SNAPSHOTS;
  list->bytes = CLUSTER;
  memory_file_resize (&file, (END + 20) * CLUSTER);
  memory_log_init (&record);
  record.hook = count_reads;
  store = store_memory_new (&file, &record, MEMORY_IMAGE, false);
  test_many ();
  test_end (0, true);
  test_end (CLUSTER, false);
  test_end (2 * CLUSTER, false);
  test_end (3 * CLUSTER, false);
  test_overlap (HEADER);
  test_overlap (REFTABLE);
  test_overlap (L1 + 1);
  test_overlap (SNAPSHOT_TABLE);
  test_overlap (FIRST + 1);
  test_overlap (END - 2);
  test_l2 (SNAPSHOT_TABLE + 1);
  test_l2 (SNAPSHOT_TABLE + 2);
  test_l2 (REFTABLE);
  test_l2 (L1 + 1);
  test_l2 (SNAPSHOT_TABLE);
  test_l2 (END - 2);
  store_close (store);
  memory_log_clear (&record);
  memory_file_free (&file);
  free (list);
  return EXIT_SUCCESS;
}
