/* qcow2ext: the walk over all metadata of an image.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each structure is met once, a table before what it refers to.  What is
 * skipped leaves out no more than that, and where the walk is ended it ends.
 * A table that cannot be read is an error, about bitmaps with a message, as
 * only the walk knows which one it was.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "base/report.h"
#include "disk/metadata-walk.h"
#include "store-memory.h"

#define CLUSTER UINT64_C (512)
#define CLUSTERS 16
#define COPIED_IN(n) (QCOW2_COPIED | (n) * CLUSTER)

static const struct expected {
  enum metadata_kind kind;
  unsigned parent;              /* what it lies under, from 1; 0: nothing */
  uint64_t offset, length, index, entry;
  bool of_snapshot;
} all[] = {
  { METADATA_HEADER, 0, 0, CLUSTER, 0, 0, false },
  { METADATA_LUKS_HEADER, 0, 12 * CLUSTER, 600, 0, 0, false },
  { METADATA_SNAPSHOT_TABLE, 0, 6 * CLUSTER, 100, 0, 0, false },
  { METADATA_L1, 3, 7 * CLUSTER, 8, 0, 0, true },
  { METADATA_L2, 4, 8 * CLUSTER, CLUSTER, 0, 8 * CLUSTER, true },
  { METADATA_BITMAP_DIRECTORY, 0, 9 * CLUSTER, 64, 0, 0, false },
  { METADATA_BITMAP_TABLE, 6, 10 * CLUSTER, 24, 0, 0, false },
  { METADATA_BITMAP, 7, 0, 0, 0, 1, false },
  { METADATA_BITMAP, 7, 11 * CLUSTER, CLUSTER, 2, 11 * CLUSTER, false },
  { METADATA_BITMAP_TABLE, 6, 13 * CLUSTER, 8, 0, 0, false },
  { METADATA_BITMAP, 10, 14 * CLUSTER, CLUSTER, 0, 14 * CLUSTER, false },
  { METADATA_L1, 0, 3 * CLUSTER, 24, 0, 0, false },
  { METADATA_L2, 12, 4 * CLUSTER, CLUSTER, 0, COPIED_IN (4), false },
  { METADATA_L2, 12, 5 * CLUSTER, CLUSTER, 2, 5 * CLUSTER, false },
  { METADATA_REFCOUNT_TABLE, 0, CLUSTER, CLUSTER, 0, 0, false },
  { METADATA_REFCOUNT_BLOCK, 15, 2 * CLUSTER, CLUSTER, 0, 2 * CLUSTER, false },
};
#define ALL (sizeof all / sizeof all[0])

static unsigned messages;

static void
count_message (enum report_level level, const char *message)
{
  (void) message;
  messages += level == REPORT_ERROR;
}

/* What is to be done of the walk, and what has been met. */
struct walked {
  const struct snapshot *snapshot;
  unsigned skip;                /* from 1; 0: nothing is skipped */
  unsigned end;                 /* likewise */
  int result;                   /* of the end */
  bool met[ALL];
  unsigned calls;
};

/* It is the next one in the list that is not left out. */
static int
meet (void *opaque, const struct metadata_range *m)
{
  struct walked *w = opaque;
  unsigned i = 0;

  while (i < ALL
         && (w->met[i] || all[i].kind != m->kind
             || all[i].offset != m->offset || all[i].index != m->index))
    i++;
  CHECK (i < ALL);
  for (unsigned j = i + 1; j < ALL; j++)
    CHECK (!w->met[j]);
  CHECK (all[i].length == m->length && all[i].entry == m->entry);
  CHECK (m->snapshot == (all[i].of_snapshot ? w->snapshot : NULL));
  w->met[i] = true;
  w->calls++;
  return i + 1 == w->end ? w->result
    : i + 1 == w->skip ? METADATA_SKIP : 0;
}

/* Does it lie under what is skipped? */
static bool
is_under (unsigned i, unsigned skip)
{
  while (all[i].parent && all[i].parent != skip)
    i = all[i].parent - 1;
  return skip && all[i].parent == skip;
}

static void
test_skip (const struct metadata_source *source)
{
  for (unsigned skip = 0; skip <= ALL; skip++) {
    struct walked w = {
      .snapshot = source->snapshots->snapshot, .skip = skip,
    };

    CHECK (metadata_walk (source, meet, &w) == 0);
    for (unsigned i = 0; i < ALL; i++)
      CHECK (w.met[i] == !is_under (i, skip));
  }
  CHECK (messages == 0);
}

/* An end is an error of whoever ended it, and has its message there. */
static void
test_end (const struct metadata_source *source)
{
  static const int results[] = { -EIO, -EINVAL, 2, 77 };

  for (unsigned i = 0; i < 4; i++)
    for (unsigned end = 1; end <= ALL; end++) {
      struct walked w = {
        .snapshot = source->snapshots->snapshot, .end = end,
        .result = results[i],
      };

      CHECK (metadata_walk (source, meet, &w) == results[i]);
      CHECK (w.calls == end);
    }
  CHECK (messages == 0);
}

/* The tables are read in this order. */
static void
test_read_errors (const struct metadata_source *source,
                  struct memory_log *log)
{
  static const enum metadata_kind tables[] = {
    METADATA_L1, METADATA_BITMAP_TABLE, METADATA_BITMAP_TABLE, METADATA_L1,
    METADATA_REFCOUNT_TABLE,
  };

  for (unsigned i = 0; i < sizeof tables / sizeof tables[0]; i++) {
    struct walked w = { .snapshot = source->snapshots->snapshot };
    unsigned last = ALL;

    log->fault = (struct memory_fault) {
      .kind = MEMORY_READ, .nth = i + 1, .error = EIO
    };
    messages = 0;
    memory_in_engine = true;
    CHECK (metadata_walk (source, meet, &w) == -EIO);
    memory_in_engine = false;
    while (!w.met[last - 1])
      last--;
    CHECK (all[last - 1].kind == tables[i]);
    CHECK (messages == (tables[i] == METADATA_BITMAP_TABLE));
  }
}

static void
put (struct memory_file *f, uint64_t at, uint64_t value)
{
  const be64 v = be64_make (value);

  memory_file_write (f, &v, sizeof v, at);
}

/* An entry of a bitmap's table that is not sound, behind one that is. */
static void
test_damage (const struct metadata_source *source, struct memory_file *f)
{
  struct walked w = { .snapshot = source->snapshots->snapshot };

  put (f, 10 * CLUSTER + 16, CLUSTERS * CLUSTER);
  messages = 0;
  CHECK (metadata_walk (source, meet, &w) == -EINVAL);
  CHECK (messages == 1);
  CHECK (w.met[7] && !w.met[8] && w.calls == 8);
}

/* Without snapshots or bitmaps, and with none in the lists. */
static void
test_none (const struct metadata_source *source)
{
  static const struct snapshot_list no_snapshots;
  struct metadata_source s = *source;

  for (unsigned i = 0; i < 2; i++) {
    struct walked w = { 0 };

    s.snapshots = i ? &no_snapshots : NULL;
    s.bitmaps = NULL;
    CHECK (metadata_walk (&s, meet, &w) == 0);
    CHECK (w.calls == 7);
  }
}

int
main (void)
{
  static const struct header header = {
    .cluster_bits = 9, .l1_offset = 3 * CLUSTER, .l1_entries = 3,
    .reftable_offset = CLUSTER, .reftable_clusters = 1,
    .snapshots_offset = 6 * CLUSTER, .nb_snapshots = 1,
    .encrypted = true, .crypto_offset = 12 * CLUSTER, .crypto_length = 600,
    .bitmap_directory_offset = 9 * CLUSTER, .bitmap_directory_size = 64,
  };
  struct snapshot_list *snapshots =
    calloc (1, sizeof *snapshots + sizeof snapshots->snapshot[0]);
  struct bitmap_list *bitmaps =
    calloc (1, sizeof *bitmaps + 2 * sizeof bitmaps->bitmap[0]);
  struct metadata_source source = {
    .file_size = CLUSTERS * CLUSTER, .header = &header,
    .snapshots = snapshots, .bitmaps = bitmaps,
  };
  struct memory_file file = { 0 };
  struct memory_log log;

  CHECK (snapshots && bitmaps);
  report_set_sink (count_message);
  snapshots->count = 1;
  snapshots->bytes = 100;
  snapshots->snapshot[0].l1_offset = 7 * CLUSTER;
  snapshots->snapshot[0].l1_entries = 1;
  bitmaps->count = 2;
  bitmaps->bitmap[0].name = (char *) "bitmap";
  bitmaps->bitmap[0].table_offset = 10 * CLUSTER;
  bitmaps->bitmap[0].table_entries = 3;
  bitmaps->bitmap[1].name = (char *) "another";
  bitmaps->bitmap[1].table_offset = 13 * CLUSTER;
  bitmaps->bitmap[1].table_entries = 1;

  memory_file_resize (&file, CLUSTERS * CLUSTER);
  put (&file, CLUSTER, 2 * CLUSTER);
  put (&file, 3 * CLUSTER, COPIED_IN (4));
  put (&file, 3 * CLUSTER + 16, 5 * CLUSTER);
  put (&file, 7 * CLUSTER, 8 * CLUSTER);
  put (&file, 10 * CLUSTER, QCOW2_BITMAP_ALL_ONES);
  put (&file, 10 * CLUSTER + 16, 11 * CLUSTER);
  put (&file, 13 * CLUSTER, 14 * CLUSTER);
  memory_log_init (&log);
  source.file = store_memory_new (&file, &log, MEMORY_IMAGE, false);

  test_skip (&source);
  test_end (&source);
  test_none (&source);
  test_read_errors (&source, &log);
  test_damage (&source, &file);
  store_close (source.file);
  memory_log_clear (&log);
  memory_file_free (&file);
  free (snapshots);
  free (bitmaps);
  return EXIT_SUCCESS;
}
