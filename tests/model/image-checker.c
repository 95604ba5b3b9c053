/* qcow2ext: checks small qcow2 images in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <endian.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "image-checker.h"
#include "toy-cipher.h"

#define COPIED (UINT64_C (1) << 63)
#define COMPRESSED (UINT64_C (1) << 62)
#define L1_RESERVED UINT64_C (0x7f000000000001ff)
#define L2_RESERVED UINT64_C (0x3f000000000001fe)
#define OFFSET UINT64_C (0x00fffffffffffe00)

/* Who refers to a host cluster. */
enum owner {
  FREE, HEADER, REFTABLE, REFBLOCK, L1, L2, DATA, PACKED, SNAPSHOTS, DIRECTORY,
  BITMAP_TABLE, BITMAP, CRYPTO
};
static const char *const owners[] = {
  "nobody", "the header", "the refcount table", "a refcount block",
  "an L1 table", "an L2 table", "data", "compressed data",
  "the snapshot table", "the bitmap directory", "a bitmap's table", "a bitmap",
  "the LUKS header"
};

struct cluster_use {
  enum owner owner;
  uint64_t where;               /* guest cluster, L1 index or the like */
  uint64_t references;
  uint64_t count;               /* what the refcount block says */
  unsigned seen_in;             /* tables with this cluster: bit 0 is the
                                   active one's, bit 1 the snapshot's */
};

/* An image that is being checked. */
struct state {
  struct checker *c;
  const struct memory_file *image, *data, *backing;
  uint64_t cluster;             /* bytes */
  unsigned bits, order, version;
  uint64_t clusters;            /* in the file; the last may be cut short */
  bool external, extended, raw, encrypted;
  uint64_t l2_entries;
};

static void error (struct checker *c, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

static void
error (struct checker *c, const char *fmt, ...)
{
  va_list ap;

  if (c->errors++ > 0)
    return;
  va_start (ap, fmt);
  vsnprintf (c->message, sizeof c->message, fmt, ap);
  va_end (ap);
}

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

/* One reference to each cluster of a range.  Returns false if there is no such
 * range.
 */
static bool
refer (struct state *s, enum owner owner, uint64_t where, unsigned table,
       uint64_t offset, uint64_t length)
{
  const uint64_t last = (offset + length - 1) / s->cluster;
  const uint64_t end = s->image->size;

  if (offset > end || offset >= s->clusters * s->cluster
      || last >= s->clusters
      /* Only data may be cut short: what is missing is zero. */
      || (owner != DATA && owner != PACKED && offset + length > end)) {
    error (s->c, "%s (%" PRIu64 ") at 0x%" PRIx64 " leads out of the file "
           "(of 0x%" PRIx64 " bytes)", owners[owner], where, offset, end);
    return false;
  }
  for (uint64_t i = offset / s->cluster; i <= last; i++) {
    struct cluster_use *u = &s->c->use[i];
    bool fine = u->owner == FREE;

    /* Compressed clusters share, and a snapshot has what the disk has, at
     * the same place.
     */
    if (u->owner == owner)
      fine = owner == PACKED
        || ((owner == DATA || owner == L2) && u->where == where
            && !(u->seen_in & 1U << table));
    if (!fine)
      error (s->c, "host cluster %" PRIu64 " belongs to %s (%" PRIu64 ") and "
             "to %s (%" PRIu64 ")", i, owners[u->owner], u->where,
             owners[owner], where);
    u->owner = owner;
    u->where = where;
    u->seen_in |= 1U << table;
    u->references++;
  }
  return true;
}

static bool
aligned (struct state *s, enum owner owner, uint64_t where, uint64_t offset)
{
  if (offset % s->cluster == 0)
    return true;
  error (s->c, "%s (%" PRIu64 ") at 0x%" PRIx64 " is not aligned",
         owners[owner], where, offset);
  return false;
}

static void
read_counts (struct state *s, uint64_t table, uint64_t table_clusters)
{
  const uint64_t per_block = s->cluster * 8 >> s->order;

  for (uint64_t i = 0; i < table_clusters * s->cluster / 8; i++) {
    const uint64_t block = get (s->image, table + i * 8, 8);

    if (block == 0)
      continue;
    if (!aligned (s, REFBLOCK, i, block))
      continue;
    refer (s, REFBLOCK, i, 0, block, s->cluster);
    for (uint64_t j = 0; j < per_block; j++) {
      const uint64_t cluster = i * per_block + j;
      uint64_t count;

      if (s->order >= 3)
        count = get (s->image, block + (j << (s->order - 3)),
                     1 << (s->order - 3));
      else
        count = get (s->image, block + ((j << s->order) >> 3), 1)
          >> ((j << s->order) & 7) & ((1U << (1 << s->order)) - 1);
      if (cluster < s->clusters)
        s->c->use[cluster].count = count;
      else if (count)
        s->c->leaks++;
    }
  }
}

/* --- what the guest sees --- */

static void
show_backing (struct state *s, uint8_t *guest, uint64_t offset,
              uint64_t length)
{
  uint64_t n = 0;

  if (s->backing && offset < s->backing->size)
    n = s->backing->size - offset < length ? s->backing->size - offset
                                           : length;
  if (n)
    memcpy (guest + offset, s->backing->bytes + offset, n);
  memset (guest + offset + n, 0, length - n);
}

/* The same of an encrypted place; the last sector may be cut short by the
 * disk's end.
 */
static void
show_encrypted (const struct memory_file *f, uint8_t *guest, uint64_t length,
                uint64_t host)
{
  uint8_t sector[512];

  for (uint64_t i = 0; i < length; i += sizeof sector) {
    const uint64_t at = host + i;
    uint64_t n = 0;

    if (at < f->size)
      n = f->size - at < sizeof sector ? f->size - at : sizeof sector;
    memset (sector, 0, sizeof sector);
    if (n)
      memcpy (sector, f->bytes + at, n);
    toy_decrypt (sector, sizeof sector, at);
    memcpy (guest + i, sector,
            length - i < sizeof sector ? length - i : sizeof sector);
  }
}

static void
show_data (struct state *s, uint8_t *guest, uint64_t offset, uint64_t length,
           uint64_t host)
{
  const struct memory_file *f = s->external ? s->data : s->image;
  uint64_t n = 0;

  if (s->encrypted) {
    show_encrypted (f, guest + offset, length, host);
    return;
  }
  if (host < f->size)
    n = f->size - host < length ? f->size - host : length;
  if (n)
    memcpy (guest + offset, f->bytes + host, n);
  memset (guest + offset + n, 0, length - n);
}

static void
show_compressed (struct state *s, uint8_t *guest, uint64_t offset,
                 uint64_t length, uint64_t host, uint64_t size)
{
  uint8_t *buf = malloc (s->cluster);
  z_stream z = { 0 };
  int r;

  if (inflateInit2 (&z, -12) != Z_OK)
    abort ();
  z.next_in = s->image->bytes + host;
  z.avail_in = host + size <= s->image->size ? size : s->image->size - host;
  z.next_out = buf;
  z.avail_out = s->cluster;
  r = inflate (&z, Z_FINISH);
  if (z.avail_out != 0 || (r != Z_STREAM_END && r != Z_BUF_ERROR))
    error (s->c, "compressed data at 0x%" PRIx64 " cannot be decoded", host);
  else
    memcpy (guest + offset, buf, length);
  inflateEnd (&z);
  free (buf);
}

/* --- tables --- */

static void
check_entry (struct state *s, uint64_t l2, uint64_t index, uint64_t cluster,
             unsigned table, uint8_t *guest)
{
  const unsigned x = 62 - (s->bits - 8);
  const uint64_t offset = cluster * s->cluster;
  const uint64_t at = l2 + index * (s->extended ? 16 : 8);
  const uint64_t entry = get (s->image, at, 8);
  const uint64_t bitmap = s->extended ? get (s->image, at + 8, 8) : 0;
  const uint64_t unit = s->extended ? s->cluster / 32 : s->cluster;
  uint64_t host = entry & OFFSET, length = s->cluster;
  bool allocated = host != 0 || (s->external && (entry & COPIED));

  if (offset >= s->c->size)
    length = 0;
  else if (length > s->c->size - offset)
    length = s->c->size - offset;

  if (entry & COMPRESSED) {
    const uint64_t sectors = (entry >> x) & ((UINT64_C (1) << (62 - x)) - 1);
    uint64_t size;

    host = entry & ((UINT64_C (1) << x) - 1);
    size = (sectors + 1) * 512 - host % 512;
    if (s->external || (entry & COPIED) || bitmap)
      error (s->c, "guest cluster %" PRIu64 ": a compressed entry that should "
             "not be: 0x%" PRIx64, cluster, entry);
    else if (refer (s, PACKED, cluster, table, host, size) && length)
      show_compressed (s, guest, offset, length, host, size);
    return;
  }

  if ((entry & L2_RESERVED)
      || ((entry & 1) && (s->version < 3 || s->extended)))
    error (s->c, "guest cluster %" PRIu64 ": reserved bits: 0x%" PRIx64,
           cluster, entry);
  if (!allocated && (entry & COPIED))
    error (s->c, "guest cluster %" PRIu64 ": copied, but nowhere", cluster);
  if (allocated) {
    if (s->external) {
      if (host != offset || !(entry & COPIED))
        error (s->c, "guest cluster %" PRIu64 ": 0x%" PRIx64 " is not the "
               "guest's offset", cluster, entry);
    }
    else if (aligned (s, DATA, cluster, host)) {
      refer (s, DATA, cluster, table, host, s->cluster);
      /* Spec: the flag is exact in the active table only. */
      if (host / s->cluster < s->clusters && table == 0 && !s->c->dirty
          && (s->c->use[host / s->cluster].count == 1)
             != !!(entry & COPIED))
        error (s->c, "guest cluster %" PRIu64 ": copied flag of 0x%" PRIx64
               ", but the refcount is %" PRIu64, cluster, entry,
               s->c->use[host / s->cluster].count);
    }
  }
  if (s->extended) {
    if ((uint32_t) bitmap & (bitmap >> 32))
      error (s->c, "guest cluster %" PRIu64 ": a subcluster is allocated and "
             "zero", cluster);
    if ((uint32_t) bitmap && !allocated)
      error (s->c, "guest cluster %" PRIu64 ": a subcluster is allocated in "
             "nothing", cluster);
  }

  for (uint64_t i = 0, n; i * unit < length; i++) {
    const uint64_t o = offset + i * unit;
    bool data = allocated && !(entry & 1), zero = entry & 1;

    n = length - i * unit < unit ? length - i * unit : unit;
    if (s->extended) {
      data = bitmap >> i & 1;
      zero = bitmap >> (i + 32) & 1;
    }
    if (data) {
      show_data (s, guest, o, n, host + i * unit);
      if (table == 0)
        memset (s->c->is_data + o / 512, 1, (n + 511) / 512);
    }
    else if (zero)
      memset (guest + o, 0, n);
    else
      show_backing (s, guest, o, n);
  }
}

static void
check_l1 (struct state *s, uint64_t l1, uint64_t entries, unsigned table,
          uint8_t *guest)
{
  const uint64_t span = s->l2_entries * s->cluster;

  if (entries == 0 || !aligned (s, L1, table, l1))
    return;
  refer (s, L1, table, table, l1, entries * 8);
  for (uint64_t i = 0; i < entries; i++) {
    const uint64_t entry = get (s->image, l1 + i * 8, 8);
    const uint64_t l2 = entry & OFFSET;

    if (entry & L1_RESERVED)
      error (s->c, "L1 entry %" PRIu64 ": reserved bits: 0x%" PRIx64, i,
             entry);
    if (l2 == 0) {
      if (i * span < s->c->size)
        show_backing (s, guest, i * span,
                      s->c->size - i * span < span ? s->c->size - i * span
                                                   : span);
      continue;
    }
    if (!aligned (s, L2, i, l2))
      continue;
    refer (s, L2, i, table, l2, s->cluster);
    if (l2 / s->cluster >= s->clusters)
      continue;
    if (table == 0 && !s->c->dirty
        && (s->c->use[l2 / s->cluster].count == 1) != !!(entry & COPIED))
      error (s->c, "L1 entry %" PRIu64 ": copied flag of 0x%" PRIx64 ", but "
             "the refcount is %" PRIu64, i, entry,
             s->c->use[l2 / s->cluster].count);
    for (uint64_t j = 0; j < s->l2_entries; j++)
      check_entry (s, l2, j, i * s->l2_entries + j, table, guest);
  }
}

/* There is at most one snapshot in these tests. */
static void
check_snapshot (struct state *s, uint64_t table)
{
  const uint64_t l1 = get (s->image, table, 8);
  const uint64_t entries = get (s->image, table + 8, 4);

  refer (s, SNAPSHOTS, 0, 0, table, 64);
  s->c->has_snapshot = true;
  if (get (s->image, table + 48, 8) != s->c->size) {
    error (s->c, "the snapshot table is damaged");
    return;
  }
  check_l1 (s, l1, entries, 1, s->c->snapshot);
}

/* A bitmap, whose directory entry is at pos. */
static void
check_bitmap (struct state *s, unsigned i, uint64_t pos)
{
  struct checker *c = s->c;
  const uint64_t table = get (s->image, pos, 8);
  const uint64_t entries = get (s->image, pos + 8, 4);
  const unsigned granularity_bits = get (s->image, pos + 17, 1);
  const uint64_t granule = UINT64_C (1) << (granularity_bits & 63);
  const uint64_t bits = (c->size + granule - 1) / granule;
  const uint64_t per_cluster = s->cluster * 8;

  c->bitmap[i].flags = get (s->image, pos + 12, 4);
  c->bitmap[i].granule = granule;
  if (c->bitmap[i].flags & ~3U || get (s->image, pos + 16, 1) != 1
      || granularity_bits < 9 || granularity_bits > 31
      || entries != (bits + per_cluster - 1) / per_cluster) {
    error (c, "the entry of bitmap %u is damaged", i);
    return;
  }
  if (!aligned (s, BITMAP_TABLE, i, table))
    return;
  refer (s, BITMAP_TABLE, i, 0, table, entries * 8);
  c->bitmap[i].bits = realloc (c->bitmap[i].bits, bits);
  if (c->bitmap[i].bits == NULL)
    abort ();
  for (uint64_t j = 0; j < entries; j++) {
    const uint64_t entry = get (s->image, table + j * 8, 8);
    const uint64_t host = entry & OFFSET;

    if (entry & ~(OFFSET | 1) || (host && entry & 1))
      error (c, "bitmap %u: a damaged table entry: 0x%" PRIx64, i, entry);
    if (host && aligned (s, BITMAP, i, host))
      refer (s, BITMAP, i, 0, host, s->cluster);
    for (uint64_t k = j * per_cluster; k < bits && k < (j + 1) * per_cluster;
         k++) {
      const uint64_t b = k - j * per_cluster;

      c->bitmap[i].bits[k] = host ? get (s->image, host + b / 8, 1) >> b % 8 & 1
                                  : entry & 1;
    }
  }
}

static void
check_bitmaps (struct state *s)
{
  struct checker *c = s->c;
  uint64_t pos = get (s->image, 100, 4), dir, bytes, end;

  /* Spec: the extension is to be believed only with this autoclear bit. */
  if (s->version < 3 || !(get (s->image, 88, 8) & 1))
    return;
  while (get (s->image, pos, 4) != 0x23852875) {
    if (get (s->image, pos, 4) == 0 || pos >= s->cluster) {
      error (c, "there is no bitmap extension");
      return;
    }
    pos += 8 + ((get (s->image, pos + 4, 4) + 7) & -UINT64_C (8));
  }
  c->bitmaps = get (s->image, pos + 8, 4);
  bytes = get (s->image, pos + 16, 8);
  dir = get (s->image, pos + 24, 8);
  end = dir + bytes;
  if (c->bitmaps > CHECKER_BITMAPS || end > s->image->size
      || !aligned (s, DIRECTORY, 0, dir)) {
    error (c, "the bitmap extension is damaged");
    c->bitmaps = 0;
    return;
  }
  refer (s, DIRECTORY, 0, 0, dir, bytes);
  for (unsigned i = 0; i < c->bitmaps && dir < end; i++) {
    check_bitmap (s, i, dir);
    dir += (24 + get (s->image, dir + 18, 2) + get (s->image, dir + 20, 4) + 7)
      & -UINT64_C (8);
  }
  if (dir != end)
    error (c, "the bitmap directory has not its size");
}

static void
check_crypto (struct state *s)
{
  uint64_t pos = get (s->image, 100, 4), at;

  if (!s->encrypted)
    return;
  while (get (s->image, pos, 4) != 0x0537be77) {
    if (get (s->image, pos, 4) == 0 || pos >= s->cluster) {
      error (s->c, "there is no encryption extension");
      return;
    }
    pos += 8 + ((get (s->image, pos + 4, 4) + 7) & -UINT64_C (8));
  }
  at = get (s->image, pos + 8, 8);
  if (aligned (s, CRYPTO, 0, at))
    refer (s, CRYPTO, 0, 0, at, get (s->image, pos + 16, 8));
}

static void
compare_counts (struct state *s)
{
  for (uint64_t i = 0; i < s->clusters; i++) {
    const struct cluster_use *u = &s->c->use[i];

    if (u->count)
      s->c->end = i + 1;
    if (s->c->dirty)
      continue;
    if (u->count < u->references)
      error (s->c, "host cluster %" PRIu64 " (%s, %" PRIu64 ") has a refcount "
             "of %" PRIu64 " and %" PRIu64 " references", i,
             owners[u->owner], u->where, u->count, u->references);
    else if (u->count > u->references)
      s->c->leaks++;
  }
}

static bool
read_header (struct state *s)
{
  const uint64_t incompatible = get (s->image, 72, 8);
  struct checker *c = s->c;

  s->version = get (s->image, 4, 4);
  s->bits = get (s->image, 20, 4);
  if (s->image->size < 104 || get (s->image, 0, 4) != 0x514649fb
      || s->version < 2 || s->version > 3 || s->bits < 9 || s->bits > 21) {
    error (c, "the header is damaged");
    return false;
  }
  s->order = 4;
  if (s->version >= 3) {
    s->external = incompatible & 4;
    s->extended = incompatible & 16;
    s->raw = get (s->image, 88, 8) & 2;
    s->encrypted = get (s->image, 32, 4) == 2;
    c->unknown_autoclear = get (s->image, 88, 8) & ~UINT64_C (3);
    s->order = get (s->image, 96, 4);
    c->dirty = incompatible & 1;
    if (incompatible & ~UINT64_C (0x15))
      error (c, "incompatible features: 0x%" PRIx64, incompatible);
  }
  c->cluster = s->cluster = UINT64_C (1) << s->bits;
  s->clusters = (s->image->size + s->cluster - 1) / s->cluster;
  s->l2_entries = s->cluster / (s->extended ? 16 : 8);
  c->size = get (s->image, 24, 8);
  if (s->order > 6 || c->size > UINT32_MAX) {
    error (c, "the header is damaged");
    return false;
  }
  return true;
}

void
checker_run (struct checker *c, const struct memory_file *image,
             const struct memory_file *data,
             const struct memory_file *backing)
{
  struct state s = {
    .c = c, .image = image, .data = data, .backing = backing
  };
  uint64_t reftable, reftable_clusters;

  c->errors = c->leaks = c->end = c->bitmaps = 0;
  c->dirty = false;
  c->message[0] = '\0';
  c->has_snapshot = c->unknown_autoclear = false;
  if (!read_header (&s))
    return;
  if (c->guest_room < c->size) {
    free (c->guest);
    free (c->snapshot);
    free (c->is_data);
    c->guest_room = c->size;
    c->guest = malloc (c->size);
    c->snapshot = malloc (c->size);
    c->is_data = malloc (c->size / 512 + 1);
  }
  if (c->cluster_room < s.clusters) {
    free (c->use);
    c->cluster_room = 2 * s.clusters;
    c->use = malloc (c->cluster_room * sizeof *c->use);
  }
  if (!c->guest || !c->snapshot || !c->is_data || !c->use)
    abort ();
  memset (c->use, 0, s.clusters * sizeof *c->use);
  memset (c->is_data, 0, c->size / 512 + 1);

  refer (&s, HEADER, 0, 0, 0, s.cluster);
  reftable = get (image, 48, 8);
  reftable_clusters = get (image, 56, 4);
  if (reftable == 0 || reftable_clusters == 0
      || reftable_clusters > s.clusters
      || !aligned (&s, REFTABLE, 0, reftable)) {
    error (c, "there is no refcount table");
    return;
  }
  refer (&s, REFTABLE, 0, 0, reftable, reftable_clusters * s.cluster);
  read_counts (&s, reftable, reftable_clusters);
  check_l1 (&s, get (image, 40, 8), get (image, 36, 4), 0, c->guest);
  if (get (image, 60, 4))
    check_snapshot (&s, get (image, 64, 8));
  check_bitmaps (&s);
  check_crypto (&s);
  compare_counts (&s);
}

void
checker_free (struct checker *c)
{
  free (c->guest);
  free (c->snapshot);
  free (c->is_data);
  free (c->use);
  for (unsigned i = 0; i < CHECKER_BITMAPS; i++)
    free (c->bitmap[i].bits);
  memset (c, 0, sizeof *c);
}
