/* qcow2ext: where the metadata of an image is.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image-walker.h"

#define COMPRESSED (UINT64_C (1) << 62)
#define OFFSET UINT64_C (0x00fffffffffffe00)

/* No image of the tests has more that could be written to. */
#define MAX_SNAPSHOTS 64
#define MAX_BITMAPS 64

static uint64_t
get (const struct memory_file *f, uint64_t offset, unsigned bytes)
{
  uint64_t v = 0;

  /* Most are like this, and there are very many. */
  if (bytes == 8 && offset <= f->size && f->size - offset >= 8) {
    memcpy (&v, f->bytes + offset, 8);
    return be64toh (v);
  }
  for (unsigned i = 0; i < bytes; i++)
    v = v << 8 | (offset + i < f->size ? f->bytes[offset + i] : 0);
  return v;
}

static void
mark (struct walker *w, unsigned what, uint64_t offset, uint64_t length)
{
  const uint64_t first = offset / w->cluster;
  const unsigned l2 = IS_L2 | IS_SNAPSHOT_L2, data = IS_DATA | IS_PACKED;
  unsigned others = IS_METADATA | data;

  if (length == 0)
    return;
  /* Snapshots share tables and data with the disk. */
  if (what & data)
    others &= ~data;
  else if (what & l2)
    others &= ~l2;
  for (uint64_t c = first;
       c < w->clusters && c - first <= (offset % w->cluster + length - 1)
                                       / w->cluster;
       c++) {
    w->overlap |= (w->what[c] & others) != 0;
    w->what[c] |= what;
  }
}

static void
first (uint64_t *where, uint64_t offset)
{
  if (*where == 0)
    *where = offset;
}

static void
walk_l2 (struct walker *w, const struct memory_file *f, uint64_t l2)
{
  const unsigned width = w->extended ? 16 : 8;
  const unsigned x = 62 - (w->bits - 8);

  for (uint64_t i = 0; i < w->cluster / width && l2 + i * width < f->size;
       i++) {
    const uint64_t at = l2 + i * width;
    const uint64_t entry = get (f, at, 8);
    uint64_t host = entry & OFFSET;

    if (entry & COMPRESSED) {
      const uint64_t sectors = (entry >> x) & ((UINT64_C (1) << (62 - x)) - 1);

      host = entry & ((UINT64_C (1) << x) - 1);
      mark (w, IS_PACKED, host, (sectors + 1) * 512 - host % 512);
      if (host < f->size && w->packed_entry == 0) {
        w->packed = host;
        w->packed_entry = at;
      }
    }
    else if (host && !w->external) {
      mark (w, IS_DATA, host, w->cluster);
      if (host < f->size && w->data_entry == 0) {
        w->data = host;
        w->data_entry = at;
      }
    }
    else if (w->external && entry && w->data_entry == 0)
      w->data_entry = at;
  }
}

static void
walk_l1 (struct walker *w, const struct memory_file *f, uint64_t l1,
         uint64_t entries, bool snapshot)
{
  mark (w, snapshot ? IS_SNAPSHOT_L1 : IS_L1, l1, entries * 8);
  for (uint64_t i = 0; i < entries && l1 < f->size && i * 8 < f->size - l1;
       i++) {
    const uint64_t l2 = get (f, l1 + i * 8, 8) & OFFSET;
    const unsigned what = snapshot ? IS_SNAPSHOT_L2 : IS_L2;
    bool seen;

    if (l2 == 0 || l2 >= f->size)
      continue;
    seen = w->what[l2 / w->cluster] & what;
    w->overlap |= seen && !snapshot;
    mark (w, what, l2, w->cluster);
    first (snapshot ? &w->snapshot_l2 : &w->l2, l2);
    if (!seen)
      walk_l2 (w, f, l2);
  }
}

static void
walk_snapshots (struct walker *w, const struct memory_file *f)
{
  const uint64_t table = get (f, 64, 8);
  uint64_t n = get (f, 60, 4), at = table;

  if (n > MAX_SNAPSHOTS)
    n = MAX_SNAPSHOTS;
  for (uint64_t i = 0; i < n && at < f->size; i++) {
    const uint64_t l1 = get (f, at, 8), entries = get (f, at + 8, 4);

    first (&w->snapshots, table);
    if (l1 < f->size) {
      first (&w->snapshot_l1, l1);
      walk_l1 (w, f, l1, entries, true);
    }
    at += 40 + get (f, at + 12, 2) + get (f, at + 14, 2)
      + get (f, at + 36, 4);
    at += -(at - table) & 7;
  }
  if (at > table)
    mark (w, IS_SNAPSHOTS, table, at - table);
}

/* Is there room at pos for a header extension?  The name of the backing file
 * ends them.
 */
static bool
may_be_extension (const struct walker *w, const struct memory_file *f,
                  uint64_t pos)
{
  const uint64_t name = get (f, 8, 8);
  const uint64_t end = name && name < w->cluster ? name : w->cluster;

  return pos < f->size && pos + 8 <= end;
}

static void
walk_bitmaps (struct walker *w, const struct memory_file *f)
{
  uint64_t pos = get (f, 100, 4), dir, n, at;

  while (may_be_extension (w, f, pos) && get (f, pos, 4) != 0x23852875) {
    if (get (f, pos, 4) == 0)
      return;
    pos += 8 + ((get (f, pos + 4, 4) + 7) & ~UINT64_C (7));
  }
  if (!may_be_extension (w, f, pos))
    return;
  w->bitmaps_extension = pos + 8;
  if (!(get (f, 88, 8) & 1))
    return;
  n = get (f, pos + 8, 4);
  dir = at = get (f, pos + 24, 8);
  if (dir >= f->size)
    return;
  w->bitmaps = dir;
  mark (w, IS_BITMAPS, dir, get (f, pos + 16, 8));
  for (uint64_t i = 0; i < n && i < MAX_BITMAPS && at < f->size; i++) {
    const uint64_t table = get (f, at, 8), entries = get (f, at + 8, 4);

    if (table < f->size) {
      first (&w->bitmap_table, table);
      mark (w, IS_BITMAP_TABLE, table, entries * 8);
    }
    for (uint64_t j = 0; j < entries && table < f->size
           && j * 8 < f->size - table; j++) {
      const uint64_t bits = get (f, table + j * 8, 8) & OFFSET;

      if (bits && bits < f->size) {
        first (&w->bitmap, bits);
        mark (w, IS_BITMAP, bits, w->cluster);
      }
    }
    at += (24 + get (f, at + 20, 4) + get (f, at + 18, 2) + 7)
      & ~UINT64_C (7);
  }
}

static void
walk_crypto (struct walker *w, const struct memory_file *f)
{
  uint64_t pos = get (f, 100, 4);

  while (may_be_extension (w, f, pos)) {
    const uint64_t type = get (f, pos, 4);

    if (type == 0)
      return;
    if (type == 0x0537be77 && get (f, pos + 8, 8) < f->size)
      mark (w, IS_CRYPTO, get (f, pos + 8, 8), get (f, pos + 16, 8));
    pos += 8 + ((get (f, pos + 4, 4) + 7) & ~UINT64_C (7));
  }
}

void
walker_run (struct walker *w, const struct memory_file *f)
{
  uint64_t table_clusters;

  *w = (struct walker) { .what = w->what, .room = w->room };
  w->version = get (f, 4, 4);
  w->bits = get (f, 20, 4);
  if (get (f, 0, 4) != 0x514649fb || w->version < 2 || w->version > 3
      || w->bits < 9 || w->bits > 21)
    return;
  w->valid = true;
  w->order = 4;
  if (w->version == 3) {
    w->encrypted = get (f, 32, 4) == 2;
    w->external = get (f, 72, 8) & 4;
    w->extended = get (f, 72, 8) & 16;
    w->order = get (f, 96, 4);
  }
  w->size = get (f, 24, 8);
  w->cluster = UINT64_C (1) << w->bits;
  w->clusters = (f->size + w->cluster - 1) / w->cluster;
  if (w->room < w->clusters) {
    free (w->what);
    w->room = 2 * w->clusters;
    w->what = malloc (w->room * sizeof *w->what);
    if (w->what == NULL)
      abort ();
  }
  if (w->clusters)
    memset (w->what, 0, w->clusters * sizeof *w->what);

  mark (w, IS_HEADER, 0, w->cluster);
  w->l1 = get (f, 40, 8);
  walk_l1 (w, f, w->l1, get (f, 36, 4), false);
  w->reftable = get (f, 48, 8);
  table_clusters = get (f, 56, 4);
  mark (w, IS_REFTABLE, w->reftable, table_clusters * w->cluster);
  for (uint64_t i = 0; i < table_clusters * w->cluster / 8
         && w->reftable < f->size && i * 8 < f->size - w->reftable; i++) {
    const uint64_t block = get (f, w->reftable + i * 8, 8)
      & ~UINT64_C (511);

    if (block && block < f->size) {
      first (&w->refblock, block);
      mark (w, IS_REFBLOCK, block, w->cluster);
    }
  }
  walk_snapshots (w, f);
  if (w->version == 3) {
    walk_bitmaps (w, f);
    if (w->encrypted)
      walk_crypto (w, f);
  }
}

void
walker_free (struct walker *w)
{
  free (w->what);
  memset (w, 0, sizeof *w);
}

unsigned
walker_what (const struct walker *w, uint64_t offset, uint64_t length)
{
  unsigned what = 0;

  if (length == 0)
    return 0;
  for (uint64_t c = offset / w->cluster;
       c < w->clusters && c <= (offset + length - 1) / w->cluster; c++)
    what |= w->what[c];
  return what;
}

const char *
walker_name (unsigned what)
{
  static const char *const names[] = {
    "the header", "the L1 table", "an L2 table", "the refcount table",
    "a refcount block", "the snapshot table", "a snapshot's L1 table",
    "a snapshot's L2 table", "the bitmap directory", "a bitmap table",
    "a bitmap", "the LUKS header", "data", "compressed data",
  };

  return what ? names[__builtin_ctz (what)] : "nothing";
}
