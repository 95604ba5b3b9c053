/* qcow2ext: makes small qcow2 images in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The layout is that of qemu-img: header, refcount table, refcount blocks, L1
 * table; then L2 tables and clusters as they come.  The refcounts are put
 * together in an array and written at the end.
 */

#include "build-config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "image-maker.h"
#include "toy-cipher.h"

#define COPIED (UINT64_C (1) << 63)
#define COMPRESSED (UINT64_C (1) << 62)
#define ZERO UINT64_C (1)

struct maker {
  const struct image_spec *spec;
  struct memory_file *image, *data, *backing;
  uint8_t *guest;
  uint64_t cluster;             /* bytes */
  uint64_t *count;              /* refcounts */
  uint64_t counts;              /* room for them, in clusters */
  uint64_t next;                /* the next cluster of the image file */
  unsigned allocations;
  uint64_t packed, packed_end;  /* where compressed data may be added */
  uint64_t bitmaps_at;          /* the header extension */
  uint64_t crypto_at;           /* likewise */
};

static void
put (uint8_t *p, unsigned bytes, uint64_t v)
{
  while (bytes-- > 0) {
    p[bytes] = v;
    v >>= 8;
  }
}

static void
put_file (struct memory_file *f, uint64_t offset, unsigned bytes, uint64_t v)
{
  uint8_t buf[8];

  put (buf, bytes, v);
  memory_file_write (f, buf, bytes, offset);
}

void
make_pattern (uint8_t buf[MEMORY_SECTOR], uint32_t number, uint64_t sector)
{
  const uint64_t base = (uint64_t) number << 32 | (sector & UINT32_MAX);
  const bool repeat = number >= PATTERN_FIRST && number % 4 != 3;
  uint64_t x = base * UINT64_C (0x9e3779b97f4a7c15);

  /* The first word says what this is, for whoever looks at a dump. */
  put (buf, 8, base);
  for (unsigned i = 8; i < MEMORY_SECTOR; i += 8) {
    x ^= x >> 29;
    x *= UINT64_C (0xbf58476d1ce4e5b9);
    memcpy (buf + i, &x, 8);
    if (repeat && i >= 128)
      memcpy (buf + i, buf + i - 64, 8);
  }
}

/* Patterns for a range that begins at a guest offset. */
static void
put_pattern (struct memory_file *f, uint64_t length, uint64_t offset,
             uint32_t number, uint64_t guest)
{
  uint8_t buf[MEMORY_SECTOR];

  for (uint64_t i = 0; i < length; i += MEMORY_SECTOR) {
    make_pattern (buf, number, (guest + i) / MEMORY_SECTOR);
    memory_file_write (f, buf, MEMORY_SECTOR, offset + i);
  }
}

/* The same for guest data, which may be encrypted. */
static void
put_data (struct maker *m, struct memory_file *f, uint64_t length,
          uint64_t offset, uint32_t number, uint64_t guest)
{
  put_pattern (f, length, offset, number, guest);
  if (m->spec->encrypted)
    toy_encrypt (f->bytes + offset, length, offset);
}

static uint64_t
allocate (struct maker *m, uint64_t clusters)
{
  uint64_t first = m->next;

  /* Every third time, leave something free behind. */
  if (m->spec->holes && m->allocations++ % 3 == 2) {
    put_pattern (m->image, m->cluster, first * m->cluster, PATTERN_OLD,
                 first * m->cluster);
    first++;
  }
  m->next = first + clusters;
  if (m->next > m->counts) {
    fprintf (stderr, "image-maker: %s: too many clusters\n", m->spec->name);
    abort ();
  }
  for (uint64_t i = first; i < m->next; i++)
    m->count[i] = 1;
  if (m->image->size < m->next * m->cluster)
    memory_file_resize (m->image, m->next * m->cluster);
  return first * m->cluster;
}

static char
map_at (const struct image_spec *spec, uint64_t cluster)
{
  return spec->map[cluster % strlen (spec->map)];
}

bool
is_mixed (const struct image_spec *spec, uint64_t cluster)
{
  return map_at (spec, cluster) == 'S';
}

bool
is_stale (const struct image_spec *spec, uint64_t cluster)
{
  const char c = map_at (spec, cluster);

  return c == 'A' || c == 'S' || (spec->stale && c != 'D');
}

static uint64_t
backing_size (const struct image_spec *spec)
{
  return spec->backing ? spec->size * 3 / 4 / MEMORY_SECTOR * MEMORY_SECTOR
                       : 0;
}

/* What the guest sees: patterns, or what lies below. */
static void
set_guest (struct maker *m, uint64_t offset, uint64_t length, char what)
{
  const uint64_t below = backing_size (m->spec);

  for (uint64_t o = offset; o < offset + length && o < m->spec->size;
       o += MEMORY_SECTOR) {
    if (what == 'D')
      make_pattern (m->guest + o, PATTERN_INITIAL, o / MEMORY_SECTOR);
    else if (what == '.' && o < below)
      make_pattern (m->guest + o, PATTERN_BACKING, o / MEMORY_SECTOR);
    else
      memset (m->guest + o, 0, MEMORY_SECTOR);
  }
}

/* Compressed clusters have few different bytes, so that they get small. */
static uint64_t
make_compressed (struct maker *m, uint64_t guest)
{
  const unsigned x = 62 - (m->spec->cluster_bits - 8);
  uint8_t *plain = calloc (1, m->cluster), *packed = malloc (m->cluster);
  z_stream z = { 0 };
  uint64_t host, size, first, last;

  for (uint64_t o = 0; o < m->cluster; o += MEMORY_SECTOR) {
    memset (plain + o, 0x40 + (guest + o) / MEMORY_SECTOR % 64, MEMORY_SECTOR);
    if (guest + o < m->spec->size)
      memcpy (m->guest + guest + o, plain + o, MEMORY_SECTOR);
  }
  if (deflateInit2 (&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
    abort ();
  z.next_in = plain;
  z.avail_in = m->cluster;
  z.next_out = packed;
  z.avail_out = m->cluster;
  if (deflate (&z, Z_FINISH) != Z_STREAM_END)
    abort ();
  size = m->cluster - z.avail_out;
  deflateEnd (&z);

  /* The first one lies in two host clusters, of which the others share the
   * second.
   */
  if (m->packed_end - m->packed < size) {
    host = allocate (m, 2);
    m->count[host / m->cluster] = 0;
    m->count[host / m->cluster + 1] = 0;
    m->packed_end = host + 2 * m->cluster;
    m->packed = m->packed_end - m->cluster - size / 2;
  }
  host = m->packed;
  memory_file_write (m->image, packed, size, host);
  m->packed += size;
  free (plain);
  free (packed);

  first = host / MEMORY_SECTOR;
  last = (host + size - 1) / MEMORY_SECTOR;
  for (uint64_t c = host / m->cluster; c <= (host + size - 1) / m->cluster;
       c++)
    m->count[c]++;
  /* Data up to the end of its last sector belongs to it, as the descriptor
   * says; all of that is in the same cluster.
   */
  return COMPRESSED | (last - first) << x | host;
}

static void
make_entry (struct maker *m, uint64_t l2, uint64_t cluster, unsigned index)
{
  const struct image_spec *spec = m->spec;
  const uint64_t guest = cluster * m->cluster;
  const uint64_t unit = spec->extended ? m->cluster / 32 : m->cluster;
  struct memory_file *f = spec->external ? m->data : m->image;
  const char what = map_at (spec, cluster);
  uint64_t entry = 0, bitmap = 0, host = 0;

  if (what == 'C') {
    entry = make_compressed (m, guest);
    goto out;
  }
  if (what == 'D' || what == 'A' || what == 'S') {
    host = spec->external ? guest : allocate (m, 1);
    entry = host | COPIED;
    put_data (m, f, m->cluster, host, what == 'D' ? PATTERN_INITIAL
                                                  : PATTERN_OLD, guest);
  }
  set_guest (m, guest, m->cluster, what == 'D' || what == '.' ? what : 'Z');
  if (!spec->extended) {
    if (what == 'Z' || what == 'A')
      entry |= ZERO;
    goto out;
  }

  switch (what) {
  case 'D':
    bitmap = UINT32_MAX;
    break;
  case 'Z':
  case 'A':
    bitmap = (uint64_t) UINT32_MAX << 32;
    break;
  case 'S':
    for (unsigned i = 0; i < 32; i++)
      switch (i % 3) {
      case 0:
        bitmap |= UINT64_C (1) << i;
        put_data (m, f, unit, host + i * unit, PATTERN_INITIAL,
                  guest + i * unit);
        set_guest (m, guest + i * unit, unit, 'D');
        break;
      case 1:
        bitmap |= UINT64_C (1) << (i + 32);
        break;
      case 2:
        set_guest (m, guest + i * unit, unit, '.');
        break;
      }
    break;
  }

 out:
  if (spec->extended) {
    put_file (m->image, l2 + index * 16, 8, entry);
    put_file (m->image, l2 + index * 16 + 8, 8, bitmap);
  }
  else
    put_file (m->image, l2 + index * 8, 8, entry);
}

/* Takes the copied flags away and raises the counts of what one L1 entry
 * leads to: a snapshot shares it.
 */
static void
share (struct maker *m, uint64_t l2, uint64_t entries)
{
  const unsigned width = m->spec->extended ? 16 : 8;
  const unsigned x = 62 - (m->spec->cluster_bits - 8);

  for (uint64_t i = 0; i < entries; i++) {
    uint8_t *p = m->image->bytes + l2 + i * width;
    uint64_t entry = 0;

    for (unsigned j = 0; j < 8; j++)
      entry = entry << 8 | p[j];
    if (entry & COMPRESSED) {
      const uint64_t host = entry & ((UINT64_C (1) << x) - 1);
      const uint64_t sectors =
        (entry >> x) & ((UINT64_C (1) << (62 - x)) - 1);
      const uint64_t last = (host / MEMORY_SECTOR + sectors) * MEMORY_SECTOR;

      for (uint64_t c = host / m->cluster; c <= last / m->cluster; c++)
        m->count[c]++;
      continue;
    }
    if (entry & ~(COPIED | ZERO))
      m->count[(entry & ~(COPIED | ZERO)) / m->cluster]++;
    put (p, 8, entry & ~COPIED);
  }
}

/* Every other L2 table is still shared with the snapshot; of the rest, the
 * snapshot has a copy.
 */
static void
make_snapshot (struct maker *m, uint64_t l1, uint64_t l1_entries,
               uint64_t l2_entries)
{
  static const char id[] = "1", name[] = "snap";
  const uint64_t l1_bytes = (l1_entries * 8 + m->cluster - 1) & -m->cluster;
  const uint64_t copy = allocate (m, l1_bytes / m->cluster);
  const uint64_t table = allocate (m, 1);

  for (uint64_t i = 0; i < l1_entries; i++) {
    uint8_t *p = m->image->bytes + l1 + i * 8;
    uint64_t l2 = 0, own;

    for (unsigned j = 0; j < 8; j++)
      l2 = l2 << 8 | p[j];
    l2 &= ~COPIED;
    if (l2 == 0)
      continue;
    share (m, l2, l2_entries);
    if (i % 2 == 0) {
      m->count[l2 / m->cluster]++;
      put (p, 8, l2);
    }
    else {
      own = allocate (m, 1);
      memcpy (m->image->bytes + own, m->image->bytes + l2, m->cluster);
      l2 = own;
    }
    put_file (m->image, copy + i * 8, 8, l2);
  }

  put_file (m->image, table, 8, copy);
  put_file (m->image, table + 8, 4, l1_entries);
  put_file (m->image, table + 12, 2, strlen (id));
  put_file (m->image, table + 14, 2, strlen (name));
  put_file (m->image, table + 36, 4, 16);
  put_file (m->image, table + 48, 8, m->spec->size);
  memory_file_write (m->image, id, strlen (id), table + 56);
  memory_file_write (m->image, name, strlen (name), table + 56 + strlen (id));
  put_file (m->image, 60, 4, 1);
  put_file (m->image, 64, 8, table);
}

static uint64_t
put_extension (struct maker *m, uint64_t pos, uint32_t type, const char *data)
{
  put_file (m->image, pos, 4, type);
  put_file (m->image, pos + 4, 4, strlen (data));
  memory_file_write (m->image, data, strlen (data), pos + 8);
  return pos + 8 + ((strlen (data) + 7) & -UINT64_C (8));
}

/* Five bitmaps: two that record changes, with nothing and with something in
 * them, one that records and is all ones, one that does not record, and one
 * that was in use when somebody stopped.  Their names are so long that the
 * flags of each are in a sector of its own.
 */
static void
make_bitmaps (struct maker *m)
{
  static const struct {
    char name;
    unsigned flags, granularity_bits;
    char bits;                  /* none, some, all */
  } bitmaps[MAKER_BITMAPS] = {
    { 'a', 2, 9, 'n' }, { 'b', 2, 10, 's' }, { 'c', 2, 9, 'a' },
    { 'd', 0, 9, 's' }, { 'e', 3, 11, 's' },
  };
  const size_t name = 600, entry = 24 + name;
  const uint64_t bytes = entry * MAKER_BITMAPS;
  const uint64_t dir = allocate (m, (bytes + m->cluster - 1) / m->cluster);

  for (unsigned i = 0; i < MAKER_BITMAPS; i++) {
    const uint64_t at = dir + i * entry;
    const uint64_t granule = UINT64_C (1) << bitmaps[i].granularity_bits;
    const uint64_t bits = (m->spec->size + granule - 1) / granule;
    const uint64_t clusters = (bits + m->cluster * 8 - 1) / (m->cluster * 8);
    const uint64_t table = allocate (m, 1);
    uint8_t text[600];

    put_file (m->image, at, 8, table);
    put_file (m->image, at + 8, 4, clusters);
    put_file (m->image, at + 12, 4, bitmaps[i].flags);
    put_file (m->image, at + 16, 1, 1);
    put_file (m->image, at + 17, 1, bitmaps[i].granularity_bits);
    put_file (m->image, at + 18, 2, name);
    memset (text, bitmaps[i].name, name);
    memory_file_write (m->image, text, name, at + 24);
    for (uint64_t j = 0; j < clusters; j++) {
      uint64_t host = bitmaps[i].bits == 'a';

      if (bitmaps[i].bits == 's') {
        host = allocate (m, 1);
        memory_file_zero (m->image, m->cluster, host);
        put_file (m->image, host, 1, 0x21);
      }
      put_file (m->image, table + j * 8, 8, host);
    }
  }
  put_file (m->image, m->bitmaps_at + 8, 4, MAKER_BITMAPS);
  put_file (m->image, m->bitmaps_at + 16, 8, bytes);
  put_file (m->image, m->bitmaps_at + 24, 8, dir);
}

/* Where the LUKS header would be: it ends within a cluster. */
#define CRYPTO_BYTES 600

static void
make_crypto (struct maker *m)
{
  const uint64_t n = (CRYPTO_BYTES + m->cluster - 1) / m->cluster;
  const uint64_t at = allocate (m, n);

  memset (m->image->bytes + at, 'L', n * m->cluster);
  put_file (m->image, m->crypto_at + 8, 8, at);
  put_file (m->image, m->crypto_at + 16, 8, CRYPTO_BYTES);
}

static void
make_header (struct maker *m, uint64_t reftable, uint64_t reftable_clusters,
             uint64_t l1, uint64_t l1_entries)
{
  const struct image_spec *spec = m->spec;
  uint64_t pos = spec->version == 2 ? 72 : 104;

  put_file (m->image, 0, 4, 0x514649fb);
  put_file (m->image, 4, 4, spec->version);
  put_file (m->image, 20, 4, spec->cluster_bits);
  put_file (m->image, 24, 8, spec->size);
  put_file (m->image, 36, 4, l1_entries);
  put_file (m->image, 40, 8, l1);
  put_file (m->image, 48, 8, reftable);
  put_file (m->image, 56, 4, reftable_clusters);
  if (spec->version >= 3) {
    put_file (m->image, 72, 8, (spec->dirty ? 1 : 0)
              | (spec->external ? 4 : 0) | (spec->extended ? 16 : 0));
    put_file (m->image, 80, 8, spec->lazy);
    /* Beside our own bits one that nobody knows. */
    put_file (m->image, 88, 8, (spec->bitmaps ? 1 : 0)
              | (spec->raw ? 2 : 0) | 0x100);
    put_file (m->image, 96, 4, spec->refcount_order);
    put_file (m->image, 100, 4, 104);
  }
  if (spec->external)
    pos = put_extension (m, pos, 0x44415441, "data");
  if (spec->encrypted) {
    put_file (m->image, 32, 4, 2);
    m->crypto_at = pos;
    put_file (m->image, pos, 4, 0x0537be77);
    put_file (m->image, pos + 4, 4, 16);
    pos += 24;
  }
  if (spec->bitmaps) {
    m->bitmaps_at = pos;
    put_file (m->image, pos, 4, 0x23852875);
    put_file (m->image, pos + 4, 4, 24);
    pos += 32;
  }
  if (spec->backing) {
    pos = put_extension (m, pos, 0xe2792aca, "raw");
    pos += 8;
    put_file (m->image, 8, 8, pos);
    put_file (m->image, 16, 4, strlen ("backing"));
    memory_file_write (m->image, "backing", strlen ("backing"), pos);
  }
}

static void
put_count (struct maker *m, uint64_t block, uint64_t index)
{
  const unsigned order = m->spec->refcount_order;
  const uint64_t bit = index << order;

  if (order >= 3)
    put (m->image->bytes + block + bit / 8, 1 << (order - 3),
         m->count[index]);
  else
    m->image->bytes[block + bit / 8] |= m->count[index] << (bit % 8);
}

/* Makes the image with so many refcount blocks.  Returns false if they are too
 * few.
 */
static bool
make_with_blocks (const struct image_spec *spec, struct memory_file *image,
                  struct memory_file *data, struct memory_file *backing,
                  uint8_t *guest, uint64_t blocks)
{
  struct maker m = {
    .spec = spec, .image = image, .data = data, .backing = backing,
    .guest = guest, .cluster = UINT64_C (1) << spec->cluster_bits,
  };
  const uint64_t l2_entries = m.cluster / (spec->extended ? 16 : 8);
  const uint64_t clusters = (spec->size + m.cluster - 1) / m.cluster;
  const uint64_t l1_entries = (clusters + l2_entries - 1) / l2_entries;
  const uint64_t per_block = m.cluster * 8 >> spec->refcount_order;
  uint64_t reftable, first_block, l1;

  m.counts = 3 * clusters + 128;
  if (m.counts < spec->leaked)
    m.counts = spec->leaked;
  m.count = calloc (m.counts + per_block, sizeof *m.count);
  memset (guest, 0, spec->size);

  memory_file_resize (image, m.cluster);
  m.count[0] = 1;
  m.next = 1;
  reftable = allocate (&m, 1);
  first_block = allocate (&m, blocks);
  l1 = allocate (&m, (l1_entries * 8 + m.cluster - 1) / m.cluster);
  make_header (&m, reftable, 1, l1, l1_entries);
  if (spec->encrypted)
    make_crypto (&m);

  if (spec->external) {
    if (spec->stale)
      put_pattern (data, spec->size, 0, PATTERN_OLD, 0);
    else if (!spec->short_data)
      memory_file_resize (data, spec->size);
  }
  if (spec->backing)
    put_pattern (backing, backing_size (spec), 0, PATTERN_BACKING, 0);

  for (uint64_t i = 0; i < l1_entries; i++) {
    uint64_t l2 = 0, n = clusters - i * l2_entries;
    bool needed = false;

    if (n > l2_entries)
      n = l2_entries;
    for (uint64_t j = 0; j < n; j++)
      needed |= map_at (spec, i * l2_entries + j) != '.';
    if (needed) {
      l2 = allocate (&m, 1);
      put_file (image, l1 + i * 8, 8, l2 | COPIED);
    }
    for (uint64_t j = 0; j < n; j++) {
      const uint64_t c = i * l2_entries + j;

      if (needed)
        make_entry (&m, l2, c, j);
      else
        set_guest (&m, c * m.cluster, m.cluster, '.');
    }
  }
  if (spec->external && data->size > spec->size)
    memory_file_resize (data, spec->size);
  if (spec->snapshot)
    make_snapshot (&m, l1, l1_entries, l2_entries);
  if (spec->bitmaps)
    make_bitmaps (&m);

  for (uint64_t i = 0; i < spec->leaked; i++)
    if (m.count[i] == 0)
      m.count[i] = 1;
  if (m.next > blocks * per_block || spec->leaked > blocks * per_block) {
    free (m.count);
    return false;
  }
  if (spec->dirty)
    for (uint64_t i = 1; i < m.next; i++)
      if (i % 3 != 2)
        m.count[i] = m.count[i] ? i % 3 : 1;
  if (spec->device)
    put_pattern (image, (clusters + 64) * m.cluster, m.next * m.cluster,
                 PATTERN_OLD, m.next * m.cluster);
  for (uint64_t i = 0; i < blocks; i++) {
    const uint64_t block = first_block + i * m.cluster;

    put_file (image, reftable + i * 8, 8, block);
    m.count += i * per_block;
    for (uint64_t j = 0; j < per_block && i * per_block + j < m.counts; j++)
      put_count (&m, block, j);
    m.count -= i * per_block;
  }
  free (m.count);
  return true;
}

void
make_image (const struct image_spec *spec, struct memory_file *image,
            struct memory_file *data, struct memory_file *backing,
            uint8_t *guest)
{
  for (uint64_t blocks = 1;
       !make_with_blocks (spec, image, data, backing, guest, blocks);
       blocks++) {
    /* How many are needed is known only afterwards. */
    memory_file_free (image);
    memory_file_free (data);
    memory_file_free (backing);
  }
}
