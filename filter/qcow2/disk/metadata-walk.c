/* qcow2ext: every metadata structure of an image.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>

#include "disk/metadata-walk.h"
#include "disk/table.h"

/* A walk, and the table whose entries it is at. */
struct walk {
  const struct metadata_source *source;
  metadata_fn fn;
  void *opaque;
  const struct snapshot *snapshot;
  bool ended;                   /* by fn */
};

const char *
metadata_name (enum metadata_kind kind)
{
  static const char *const name[] = {
    [METADATA_HEADER] = "header",
    [METADATA_LUKS_HEADER] = "LUKS header",
    [METADATA_REFCOUNT_TABLE] = "refcount table",
    [METADATA_REFCOUNT_BLOCK] = "refcount block",
    [METADATA_SNAPSHOT_TABLE] = "snapshot table",
    [METADATA_BITMAP_DIRECTORY] = "bitmap directory",
    [METADATA_BITMAP_TABLE] = "bitmap table",
    [METADATA_BITMAP] = "bitmap",
    [METADATA_L1] = "L1 table",
    [METADATA_L2] = "L2 table",
  };

  return name[kind];
}

static int
call (struct walk *w, const struct metadata_range *range)
{
  const int r = w->fn (w->opaque, range);

  w->ended = r != 0 && r != METADATA_SKIP;
  return r;
}

static int
visit (struct walk *w, enum metadata_kind kind, uint64_t offset,
       uint64_t length)
{
  return call (w, &(struct metadata_range) {
      .kind = kind, .offset = offset, .length = length,
      .snapshot = w->snapshot,
    });
}

/* A cluster that an entry of a table refers to. */
static int
visit_entry (struct walk *w, enum metadata_kind kind, uint64_t index,
             uint64_t entry, uint64_t offset)
{
  const uint64_t size = UINT64_C (1) << w->source->header->cluster_bits;
  const int r = call (w, &(struct metadata_range) {
      .kind = kind, .offset = offset, .length = offset ? size : 0,
      .snapshot = w->snapshot, .index = index, .entry = entry,
    });

  return r == METADATA_SKIP ? 0 : r;
}

/* --- L1 tables --- */

static int
visit_l1_entry (void *opaque, uint64_t index, uint64_t entry)
{
  return visit_entry (opaque, METADATA_L2, index, entry,
                      entry & QCOW2_L1_OFFSET);
}

static int
walk_l1 (struct walk *w, uint64_t offset, uint32_t entries,
         const struct snapshot *snapshot)
{
  int r;

  w->snapshot = snapshot;
  r = visit (w, METADATA_L1, offset, entries_bytes (entries));
  if (r == 0)
    r = table_walk (w->source->file, offset, entries, visit_l1_entry, w);
  w->snapshot = NULL;
  return r == METADATA_SKIP ? 0 : r;
}

static int
walk_snapshots (struct walk *w)
{
  const struct snapshot_list *list = w->source->snapshots;
  int r;

  if (list == NULL || list->count == 0)
    return 0;
  r = visit (w, METADATA_SNAPSHOT_TABLE, w->source->header->snapshots_offset,
             list->bytes);
  for (size_t i = 0; r == 0 && i < list->count; i++)
    r = walk_l1 (w, list->snapshot[i].l1_offset, list->snapshot[i].l1_entries,
                 &list->snapshot[i]);
  return r == METADATA_SKIP ? 0 : r;
}

/* --- refcounts --- */

static int
visit_refcount_entry (void *opaque, uint64_t index, uint64_t entry)
{
  return visit_entry (opaque, METADATA_REFCOUNT_BLOCK, index, entry,
                      entry & QCOW2_REFTABLE_OFFSET);
}

static int
walk_refcounts (struct walk *w)
{
  const struct header *h = w->source->header;
  const uint64_t bytes = (uint64_t) h->reftable_clusters << h->cluster_bits;
  int r = visit (w, METADATA_REFCOUNT_TABLE, h->reftable_offset, bytes);

  if (r == 0)
    r = table_walk (w->source->file, h->reftable_offset, bytes / sizeof (be64),
                    visit_refcount_entry, w);
  return r == METADATA_SKIP ? 0 : r;
}

/* --- bitmaps --- */

static int
visit_bitmap_entry (void *opaque, uint64_t index, uint64_t entry)
{
  struct walk *w = opaque;
  const struct metadata_source *s = w->source;

  if (!bitmap_entry_is_sound (s->header, s->file_size, entry))
    return -EINVAL;
  return visit_entry (w, METADATA_BITMAP, index, entry,
                      entry & QCOW2_BITMAP_OFFSET);
}

static int
walk_bitmaps (struct walk *w)
{
  const struct bitmap_list *list = w->source->bitmaps;
  const struct header *h = w->source->header;
  int r;

  if (list == NULL)
    return 0;
  r = visit (w, METADATA_BITMAP_DIRECTORY, h->bitmap_directory_offset,
             h->bitmap_directory_size);
  for (size_t i = 0; r == 0 && i < list->count; i++) {
    const struct bitmap *b = &list->bitmap[i];

    r = visit (w, METADATA_BITMAP_TABLE, b->table_offset,
               entries_bytes (b->table_entries));
    if (r == 0) {
      r = table_walk (w->source->file, b->table_offset, b->table_entries,
                      visit_bitmap_entry, w);
      if (r < 0 && !w->ended)
        bitmap_report_table (w->source->file, b, r);
    }
    if (r == METADATA_SKIP)
      r = 0;
  }
  return r == METADATA_SKIP ? 0 : r;
}

int
metadata_walk (const struct metadata_source *source, metadata_fn fn,
               void *opaque)
{
  const struct header *h = source->header;
  struct walk w = { .source = source, .fn = fn, .opaque = opaque };
  int r;

  r = visit (&w, METADATA_HEADER, 0, UINT64_C (1) << h->cluster_bits);
  if (h->encrypted && (r == 0 || r == METADATA_SKIP))
    r = visit (&w, METADATA_LUKS_HEADER, h->crypto_offset, h->crypto_length);
  if (r == METADATA_SKIP)
    r = 0;
  if (r != 0
      || (r = walk_snapshots (&w)) != 0
      || (r = walk_bitmaps (&w)) != 0
      || (r = walk_l1 (&w, h->l1_offset, h->l1_entries, NULL)) != 0)
    return r;
  return walk_refcounts (&w);
}
