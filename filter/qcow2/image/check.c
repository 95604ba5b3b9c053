/* qcow2ext: is an image consistent?
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The truth about host clusters is in the tables that refer to them: header,
 * L1 and L2 tables (the active ones and those of snapshots), the snapshot
 * table, bitmaps, the refcount table and its blocks.  Each reference found
 * counts one; a refcount on disk that is lower is an error, one that is
 * higher a leak.  Besides, entries must be aligned and within the file, and
 * the copied flag of active entries must say whether the count is one.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "disk/l2-entry.h"
#include "disk/metadata-walk.h"
#include "disk/refcount.h"
#include "disk/table.h"
#include "image/check.h"
#include "space/refcounts.h"

/* Findings that are reported one by one. */
#define MAX_REPORTS 20

/* Refcounts as they are on disk. */
struct disk_counts {
  be64 *table;
  uint64_t entries;
  uint64_t loaded;              /* number of the block in "block", or -1 */
  uint8_t *block;
};

struct check {
  struct layer *layer;
  struct check_result *result;
  uint64_t file_size;
  uint64_t cluster_size;
  unsigned reports;             /* that may still be made */
  struct disk_counts disk;
};

#define finding(c, counter, fmt, ...)                                   \
  do {                                                                  \
    (c)->result->counter++;                                             \
    if ((c)->reports) {                                                 \
      (c)->reports--;                                                   \
      report_error ("%s: " fmt, (c)->layer->file->name, ##__VA_ARGS__); \
    }                                                                   \
  } while (0)

/* Counts a reference to each cluster of a host range.  Returns false if the
 * file has no such range.
 */
static bool
count_range (struct check *c, const char *what, uint64_t offset,
             uint64_t length)
{
  const unsigned bits = c->layer->geo.cluster_bits;
  uint64_t end;

  if (length == 0)
    return true;
  if (__builtin_add_overflow (offset, length, &end) || end > INT64_MAX
      || (end > c->file_size && end - c->file_size >= c->cluster_size)) {
    finding (c, errors, "%s at offset 0x%" PRIx64 " lies past the end of the "
             "file", what, offset);
    return false;
  }
  for (uint64_t i = offset >> bits; i <= (end - 1) >> bits; i++)
    if (c->result->counts[i] < UINT32_MAX)
      c->result->counts[i]++;
  return true;
}

static void
count_entry (struct check *c, uint64_t entry, uint64_t bitmap, uint64_t guest)
{
  const struct layer *layer = c->layer;
  const uint64_t host = entry & QCOW2_L2_OFFSET;

  if (entry & QCOW2_L2_COMPRESSED) {
    uint64_t offset;
    uint32_t size;

    if (layer->geo.has_data_file) {
      finding (c, errors, "compressed cluster at guest offset 0x%" PRIx64
               " in an image with an external data file", guest);
      return;
    }
    if (entry & QCOW2_COPIED)
      finding (c, errors, "compressed cluster at guest offset 0x%" PRIx64
               " with the copied flag", guest);
    if (bitmap)
      finding (c, errors, "compressed cluster at guest offset 0x%" PRIx64
               " with subclusters", guest);
    l2_entry_compressed_range (&layer->geo, entry, &offset, &size);
    count_range (c, "compressed data", offset, size);
    return;
  }

  if (entry & QCOW2_L2_RESERVED)
    finding (c, errors, "the entry of guest offset 0x%" PRIx64 " has reserved "
             "bits set", guest);
  if (layer->geo.extended_l2) {
    const bool allocated =
      host || (layer->geo.has_data_file && (entry & QCOW2_COPIED));

    if ((bitmap >> 32) & bitmap || (!allocated && (uint32_t) bitmap))
      finding (c, errors, "the subclusters at guest offset 0x%" PRIx64
               " contradict each other", guest);
  }
  if (layer->geo.has_data_file) {
    if ((host || (entry & QCOW2_COPIED)) && host != guest)
      finding (c, errors, "the offset 0x%" PRIx64 " in the external data file "
               "is not the guest's, 0x%" PRIx64, host, guest);
    return;
  }
  if (host == 0)
    return;
  if (host & (c->cluster_size - 1))
    finding (c, errors, "the cluster at guest offset 0x%" PRIx64
             " is not aligned", guest);
  count_range (c, "cluster", host, c->cluster_size);
}

/* Does the file reach to the end of a table? */
static bool
is_in_file (const struct check *c, uint64_t offset, uint64_t size)
{
  return size <= c->file_size && offset <= c->file_size - size;
}

/* Calls fn for each entry of the L2 table at offset. */
static int
walk_l2 (struct check *c, uint64_t offset, uint64_t guest,
         void (*fn) (struct check *, uint64_t entry, uint64_t bitmap,
                     uint64_t guest))
{
  const struct layer *layer = c->layer;
  const size_t n = (size_t) 1 << layer->geo.l2_bits;
  CLEANUP_FREE void *table = malloc (c->cluster_size);
  int r;

  if (table == NULL)
    return -ENOMEM;
  r = store_pread (c->layer->file, table, c->cluster_size, offset);
  if (r < 0)
    return r;
  for (size_t i = 0; i < n; i++, guest += c->cluster_size) {
    if (layer->geo.extended_l2) {
      const struct qcow2_extended_entry *e = table;

      fn (c, be64_get (e[i].entry), be64_get (e[i].bitmap), guest);
    }
    else
      fn (c, be64_get (((const be64 *) table)[i]), 0, guest);
  }
  return 0;
}

/* The refcount that a cluster has on disk. */
static int
disk_count (struct check *c, struct disk_counts *d, uint64_t cluster,
            uint64_t *count)
{
  const unsigned order = c->layer->header.refcount_order;
  const unsigned block_bits = c->layer->geo.cluster_bits + 3 - order;
  const uint64_t number = cluster >> block_bits;
  const uint64_t index = cluster & ((UINT64_C (1) << block_bits) - 1);
  uint64_t host;
  int r;

  *count = 0;
  if (number >= d->entries)
    return 0;
  host = be64_get (d->table[number]) & QCOW2_REFTABLE_OFFSET;
  if (host == 0 || host & (c->cluster_size - 1) || host >= c->file_size)
    return 0;
  if (d->loaded != number) {
    r = store_pread (c->layer->file, d->block, c->cluster_size, host);
    if (r < 0)
      return r;
    d->loaded = number;
  }
  *count = refcount_decode (d->block, order, index);
  return 0;
}

/* Reads the refcount table, or what the file has of it. */
static int
load_refcounts (struct check *c, struct disk_counts *d)
{
  const struct header *h = &c->layer->header;
  const uint64_t bytes = (uint64_t) h->reftable_clusters * c->cluster_size;

  d->loaded = UINT64_MAX;
  d->block = malloc (c->cluster_size);
  if (d->block == NULL)
    return -ENOMEM;
  if (h->reftable_offset < c->file_size)
    d->entries = bytes / sizeof (be64);
  return table_read (c->layer->file, h->reftable_offset, d->entries,
                     &d->table);
}

static int
compare_counts (struct check *c, struct disk_counts *d)
{
  for (uint64_t i = 0; i < c->result->clusters; i++) {
    const uint64_t wanted = c->result->counts[i];
    uint64_t found;
    int r = disk_count (c, d, i, &found);

    if (r < 0)
      return r;
    if (found < wanted) {
      finding (c, errors, "cluster %" PRIu64 " has refcount %" PRIu64 ", but "
               "%" PRIu64 " references", i, found, wanted);
      c->result->wrong_counts++;
    }
    else if (found > wanted)
      finding (c, leaks, "cluster %" PRIu64 " is leaked: refcount %" PRIu64
               ", %" PRIu64 " references", i, found, wanted);
  }
  return 0;
}

/* Does the copied flag say whether the count is one? */
static void
check_copied (struct check *c, const char *what, uint64_t entry,
              uint64_t host)
{
  uint64_t count;

  if (disk_count (c, &c->disk, host >> c->layer->geo.cluster_bits, &count) < 0)
    return;
  if ((count == 1) != !!(entry & QCOW2_COPIED)) {
    finding (c, errors, "the copied flag of the %s at offset 0x%" PRIx64
             " is wrong", what, host);
    c->result->wrong_flags++;
  }
}

static void
check_entry_copied (struct check *c, uint64_t entry, uint64_t bitmap,
                    uint64_t guest)
{
  const uint64_t host = entry & QCOW2_L2_OFFSET;

  (void) bitmap, (void) guest;
  if (entry & QCOW2_L2_COMPRESSED)
    return;
  if (!c->layer->geo.has_data_file) {
    if (host)
      check_copied (c, "cluster", entry, host);
  }
  else if (host && !(entry & QCOW2_COPIED))
    finding (c, errors, "the copied flag of the cluster at offset 0x%" PRIx64
             " of the external data file is missing", host);
}

static int
check_l1_flag (void *opaque, uint64_t index, uint64_t entry)
{
  struct check *c = opaque;
  const uint64_t l2 = entry & QCOW2_L1_OFFSET;

  if (l2 == 0)
    return 0;
  check_copied (c, "L2 table", entry, l2);
  if (l2 >= c->file_size)
    return 0;
  return walk_l2 (c, l2, index << geometry_table_bits (&c->layer->geo),
                  check_entry_copied);
}

static int
check_flags (struct check *c)
{
  const struct header *h = &c->layer->header;

  if (!is_in_file (c, h->l1_offset, entries_bytes (h->l1_entries)))
    return 0;                   /* which was found before */
  return table_walk (c->layer->file, h->l1_offset, h->l1_entries,
                     check_l1_flag, c);
}

/* --- counting references --- */

static int
count_l1 (struct check *c, const struct metadata_range *m)
{
  const struct snapshot *s = m->snapshot;

  if (s && (m->length > QCOW2_MAX_L1_BYTES
            || m->offset & (c->cluster_size - 1)
            || m->offset > c->file_size)) {
    finding (c, errors, "the L1 table of snapshot %s is misplaced", s->id);
    return METADATA_SKIP;
  }
  return count_range (c, "L1 table", m->offset, m->length) ? 0 : METADATA_SKIP;
}

static int
count_l2 (struct check *c, const struct metadata_range *m)
{
  const unsigned coverage = geometry_table_bits (&c->layer->geo);

  if (m->entry & QCOW2_L1_RESERVED)
    finding (c, errors, "the L1 entry %" PRIu64 " has reserved bits set",
             m->index);
  if (m->length == 0) {
    if (m->entry & QCOW2_COPIED)
      finding (c, errors, "the L1 entry %" PRIu64 " has the copied flag and no "
               "table", m->index);
    return 0;
  }
  count_range (c, "L2 table", m->offset, m->length);
  if (m->offset & (c->cluster_size - 1))
    finding (c, errors, "the L2 table at offset 0x%" PRIx64
             " is not aligned", m->offset);
  if (m->offset >= c->file_size)
    return 0;
  return walk_l2 (c, m->offset, m->index << coverage, count_entry);
}

/* A refcount block must not be shared. */
static int
count_block (struct check *c, const struct metadata_range *m)
{
  if (m->entry & ~QCOW2_REFTABLE_OFFSET)
    finding (c, errors, "the entry of refcount block %" PRIu64 " has reserved "
             "bits set", m->index);
  if (m->length == 0)
    return 0;
  if (m->offset & (c->cluster_size - 1)) {
    finding (c, errors, "refcount block %" PRIu64 " is not aligned",
             m->index);
    return 0;
  }
  if (m->offset >= c->file_size) {
    finding (c, errors, "refcount block %" PRIu64 " lies past the end of "
             "the file", m->index);
    return 0;
  }
  count_range (c, "refcount block", m->offset, m->length);
  if (c->result->counts[m->offset >> c->layer->geo.cluster_bits] != 1)
    finding (c, errors, "refcount block %" PRIu64 " is shared", m->index);
  return 0;
}

static int
count_metadata (void *opaque, const struct metadata_range *m)
{
  struct check *c = opaque;

  switch (m->kind) {
  case METADATA_L1:
    return count_l1 (c, m);
  case METADATA_L2:
    return count_l2 (c, m);
  case METADATA_REFCOUNT_BLOCK:
    return count_block (c, m);
  default:
    count_range (c, metadata_name (m->kind), m->offset, m->length);
    return 0;
  }
}

int
layer_check (struct layer *layer, bool verbose, struct check_result *result)
{
  struct check c = {
    .layer = layer, .result = result,
    .cluster_size = layer_cluster_size (layer),
    .reports = verbose ? MAX_REPORTS : 0,
  };
  struct metadata_source source = {
    .file = layer->file, .header = &layer->header,
    .snapshots = layer->snapshots, .bitmaps = layer->bitmaps,
  };
  int r;

  memset (result, 0, sizeof *result);
  r = store_get_size (layer->file, &c.file_size);
  if (r < 0)
    return r;
  result->clusters =
    (c.file_size + c.cluster_size - 1) >> layer->geo.cluster_bits;
  /* A reference may reach into the cluster behind the end of the file, whose
   * count then is compared, and repaired, like any other.
   */
  if (result->clusters >= SIZE_MAX / sizeof *result->counts)
    return -ENOMEM;
  result->counts = calloc (result->clusters + 1, sizeof *result->counts);
  if (result->counts == NULL)
    return -ENOMEM;

  if (layer->bitmaps && layer->bitmaps->damaged)
    finding (&c, errors, "the dirty bitmaps are damaged");
  source.file_size = c.file_size;
  r = metadata_walk (&source, count_metadata, &c);
  if (result->counts[result->clusters])
    result->clusters++;
  if (r == 0 && (r = load_refcounts (&c, &c.disk)) == 0
      && (r = compare_counts (&c, &c.disk)) == 0)
    r = check_flags (&c);
  free (c.disk.table);
  free (c.disk.block);
  return r;
}
