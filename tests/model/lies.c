/* qcow2ext: lies about images.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Every field of the header at its limits and past them, every table and
 * descriptor pointing at each other kind of table, past the end and beside a
 * cluster's boundary, or twice at one cluster; counts of zero and of the largest
 * value; files that are cut off.
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hostile-images.h"
#include "image-walker.h"
#include "lies.h"

#define COPIED (UINT64_C (1) << 63)
#define COMPRESSED (UINT64_C (1) << 62)

/* The image at hand, without and with a lie. */
static const struct hostile_base *base;
static struct memory_file sound[MEMORY_FILES], lying[MEMORY_FILES];
static struct walker at;        /* where what is in the sound image */
static char name[LIE_NAME];
static void (*tell_fn) (const struct lie *lie);

static void begin (const char *fmt, ...)
  __attribute__ ((format (printf, 1, 2)));

/* A lie starts from the sound image. */
static void
begin (const char *fmt, ...)
{
  const int n = snprintf (name, sizeof name, "%s:", base->spec.name);
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (name + n, sizeof name - n, fmt, ap);
  va_end (ap);
  for (unsigned i = 0; i < MEMORY_FILES; i++)
    memory_file_copy (&lying[i], &sound[i]);
}

static void
put (uint64_t offset, unsigned bytes, uint64_t v)
{
  hostile_put (&lying[MEMORY_IMAGE], offset, bytes, v);
}

static uint64_t
get (uint64_t offset, unsigned bytes)
{
  return hostile_get (&lying[MEMORY_IMAGE], offset, bytes);
}

static void
tell (void)
{
  const struct lie lie = { name, &at, lying, strstr (name, ":the-truth") };

  tell_fn (&lie);
}

/* One field, one value. */
static void
lie (const char *what, uint64_t offset, unsigned bytes, uint64_t v)
{
  begin ("%s=0x%" PRIx64, what, v);
  put (offset, bytes, v);
  tell ();
}

#define LIES(what, offset, bytes, ...)                                  \
  do {                                                                  \
    const uint64_t values_[] = { __VA_ARGS__ };                         \
    for (size_t i_ = 0; i_ < sizeof values_ / sizeof values_[0]; i_++)  \
      lie (what, offset, bytes, values_[i_]);                           \
  } while (0)

static void
header_lies (void)
{
  const uint64_t cluster = at.cluster, coverage_of_l1 =
    get (36, 4) * (cluster / (at.extended ? 16 : 8)) * cluster;
  const uint64_t size = get (24, 8), l1_size = get (36, 4);
  const uint64_t l1_needed = l1_size;

  LIES ("magic", 0, 4, 0, 0x514649fa, 0xfb494651);
  LIES ("version", 4, 4, 0, 1, 2, 3, 4, UINT32_MAX);
  LIES ("backing-offset", 8, 8, 1, 71, 72, 103, 104, 112, cluster - 1,
        cluster, cluster + 1, INT64_MAX, UINT64_MAX);
  LIES ("backing-size", 16, 4, 0, 1, 1023, 1024, cluster, UINT32_MAX);
  LIES ("cluster-bits", 20, 4, 0, 8, 9, 10, 12, 13, 14, 16, 21, 22, 31, 32,
        63, 64, UINT32_MAX);
  LIES ("size", 24, 8, 0, 1, 511, 512, size - 1, size + 1, coverage_of_l1,
        coverage_of_l1 + 1, INT64_MAX, UINT64_C (1) << 63, UINT64_MAX);
  LIES ("encryption", 32, 4, 1, 2, 3, UINT32_MAX);
  LIES ("l1-entries", 36, 4, 0, l1_needed - 1, l1_needed + 1,
        cluster / 8, cluster / 8 + 1, 4 << 20, (4 << 20) + 1, UINT32_MAX);
  LIES ("reftable-clusters", 56, 4, 0, 2, 3, (8 << 20) / cluster,
        (8 << 20) / cluster + 1, UINT32_MAX);
  LIES ("snapshots", 60, 4, 0, 1, 2, 3, 65535, 65536, 65537, UINT32_MAX);
  if (at.version < 3)
    return;
  for (unsigned bit = 0; bit < 64; bit += bit < 6 ? 1 : 19) {
    begin ("incompatible-bit-%u", bit);
    put (72, 8, get (72, 8) ^ UINT64_C (1) << bit);
    tell ();
    begin ("autoclear-bit-%u", bit);
    put (88, 8, get (88, 8) ^ UINT64_C (1) << bit);
    tell ();
  }
  LIES ("compatible", 80, 8, 0, UINT64_MAX);
  LIES ("autoclear", 88, 8, 0, 1, 2, 3, UINT64_MAX);
  LIES ("refcount-order", 96, 4, 0, 1, 2, 3, 4, 5, 6, 7, 31, 32, 64,
        UINT32_MAX);
  LIES ("header-length", 100, 4, 0, 72, 103, 105, 112, 120, cluster - 1,
        cluster, cluster + 1, UINT32_MAX);
  for (unsigned type = 0; type < 3; type++)
    for (unsigned bit = 0; bit < 2; bit++) {
      begin ("compression-%u-bit-%u", type, bit);
      memmove (lying[MEMORY_IMAGE].bytes + 112,
               lying[MEMORY_IMAGE].bytes + 104, 300);
      put (100, 4, 112);
      put (104, 8, (uint64_t) type << 56);
      put (72, 8, get (72, 8) | (bit ? 8 : 0));
      tell ();
    }
}

static void
extension_lies (void)
{
  static const struct {
    const char *name;
    uint32_t type;
  } types[] = {
    { "backing-format", 0xe2792aca }, { "data-file", 0x44415441 },
    { "bitmaps", 0x23852875 }, { "feature-names", 0x6803f857 },
    { "crypto", 0x0537be77 }, { "unknown", 0x12345678 },
  };
  const uint64_t left = at.cluster - 112;
  const uint64_t lengths[] = {
    0, 1, 15, 16, 23, 24, 25, 48, left - 8, left - 1, left, left + 1, 1023,
    1024, UINT32_MAX - 7, UINT32_MAX
  };

  if (at.version < 3)
    return;
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    for (size_t j = 0; j < sizeof lengths / sizeof lengths[0]; j++) {
      begin ("extension-%s-length=0x%" PRIx64, types[i].name, lengths[j]);
      put (104, 4, types[i].type);
      put (108, 4, lengths[j]);
      tell ();
    }
    begin ("extension-%s-twice", types[i].name);
    memmove (lying[MEMORY_IMAGE].bytes + 120, lying[MEMORY_IMAGE].bytes + 104,
             300);
    put (104, 4, types[i].type);
    put (108, 4, 4);
    put (112, 8, UINT64_C (0x6162636400000000));
    put (120, 4, types[i].type);
    tell ();
  }
  begin ("extension-unending");
  for (uint64_t pos = 104; pos + 8 <= at.cluster; pos += 8)
    put (pos, 8, UINT64_C (0x1234567800000000));
  tell ();
}

/* --- pointers --- */

enum flags { PLAIN, L1_ENTRY, L2_ENTRY, PACKED };

static void
point (const char *what, uint64_t where, enum flags flags,
       const char *target, uint64_t host)
{
  const unsigned x = 62 - (at.bits - 8);
  const uint64_t sectors = ((UINT64_C (1) << (62 - x)) - 1) << x;

  switch (flags) {
  case PLAIN:
    begin ("%s-points-at-%s", what, target);
    put (where, 8, host);
    tell ();
    break;
  case L1_ENTRY:
  case L2_ENTRY:
    begin ("%s-points-at-%s", what, target);
    put (where, 8, host);
    tell ();
    begin ("%s-points-at-%s-copied", what, target);
    put (where, 8, host | COPIED);
    tell ();
    if (flags == L1_ENTRY)
      break;
    begin ("%s-points-at-%s-copied-zero", what, target);
    put (where, 8, host | COPIED | 1);
    tell ();
    begin ("%s-points-at-%s-as-compressed", what, target);
    put (where, 8, (host & ((UINT64_C (1) << x) - 1)) | COMPRESSED);
    tell ();
    break;
  case PACKED:
    begin ("%s-points-at-%s-one-sector", what, target);
    put (where, 8, (host & ((UINT64_C (1) << x) - 1)) | COMPRESSED);
    tell ();
    begin ("%s-points-at-%s-all-sectors", what, target);
    put (where, 8, (host & ((UINT64_C (1) << x) - 1)) | COMPRESSED | sectors);
    tell ();
    break;
  }
}

static void
pointer_lies (void)
{
  const struct {
    const char *name;
    uint64_t where;
    enum flags flags;
  } pointers[] = {
    { "l1", 40, PLAIN },
    { "reftable", 48, PLAIN },
    { "snapshot-table", at.snapshots ? 64 : 0, PLAIN },
    { "l1-entry", at.l1, L1_ENTRY },
    { "l1-entry-1", get (36, 4) > 1 ? at.l1 + 8 : 0, L1_ENTRY },
    { "l2-entry", at.data_entry, L2_ENTRY },
    { "l2-entry-1", at.data_entry ? at.data_entry + 8 : 0, L2_ENTRY },
    { "compressed-entry", at.packed_entry, PACKED },
    { "reftable-entry", at.reftable, PLAIN },
    { "reftable-entry-1", at.reftable + 8, PLAIN },
    { "snapshot-l1", at.snapshots, PLAIN },
    { "snapshot-l1-entry", at.snapshot_l1, L1_ENTRY },
    { "snapshot-l2-entry", at.snapshot_l2, L2_ENTRY },
    { "bitmap-directory", at.bitmaps_extension
        ? at.bitmaps_extension + 16 : 0, PLAIN },
    { "bitmap-table", at.bitmaps, PLAIN },
    { "bitmap-bits", at.bitmap_table, PLAIN },
  };
  const uint64_t size = sound[MEMORY_IMAGE].size;
  const uint64_t end = (size + at.cluster - 1) & -at.cluster;
  const struct {
    const char *name;
    uint64_t host;
    bool always;                  /* even if it is 0 */
  } targets[] = {
    { "nothing", 0, true },
    { "l1", at.l1, false },
    { "l2", at.l2, false },
    { "reftable", at.reftable, false },
    { "refblock", at.refblock, false },
    { "snapshot-table", at.snapshots, false },
    { "snapshot-l1", at.snapshot_l1, false },
    { "snapshot-l2", at.snapshot_l2, false },
    { "bitmap-directory", at.bitmaps, false },
    { "bitmap-table", at.bitmap_table, false },
    { "bitmap", at.bitmap, false },
    { "data", at.data, false },
    { "compressed", at.packed, false },
    { "last", end - at.cluster, false },
    { "end", end, false },
    { "past-the-end", end + 16 * at.cluster, false },
    { "far", UINT64_C (1) << 48, false },
    { "farther", UINT64_C (0x00fffffffffffe00) & -at.cluster, false },
    { "farthest", INT64_MAX & -at.cluster, false },
    { "int64", UINT64_C (1) << 63, false },
    { "minus-one-cluster", -at.cluster, false },
    { "minus-one", UINT64_MAX, false },
  };
  const uint64_t n = sizeof pointers / sizeof pointers[0];

  for (size_t i = 0; i < n; i++) {
    uint64_t old;

    if (pointers[i].where == 0)
      continue;
    old = hostile_get (&sound[MEMORY_IMAGE], pointers[i].where, 8)
      & UINT64_C (0x00fffffffffffe00);
    for (size_t j = 0; j < sizeof targets / sizeof targets[0]; j++)
      if (targets[j].host || targets[j].always)
        point (pointers[i].name, pointers[i].where, pointers[i].flags,
               targets[j].name, targets[j].host);
    point (pointers[i].name, pointers[i].where, pointers[i].flags,
           "8-bytes-on", old + 8);
    point (pointers[i].name, pointers[i].where, pointers[i].flags,
           "a-sector-on", old + 512);
    point (pointers[i].name, pointers[i].where, pointers[i].flags,
           "a-cluster-on", old + at.cluster);
  }
}

/* --- counts --- */

static void
fill_counts (const char *what, unsigned width_bits, uint64_t v)
{
  const uint64_t ones = width_bits == 64 ? UINT64_MAX
                                         : (UINT64_C (1) << width_bits) - 1;
  uint64_t word = 0;

  for (unsigned i = 0; i < 64; i += width_bits)
    word |= (v & ones) << i;
  begin ("refcounts-%s", what);
  for (uint64_t i = 0; i < at.clusters; i++)
    if (at.what[i] & IS_REFBLOCK)
      for (uint64_t j = 0; j < at.cluster; j += 8)
        put (i * at.cluster + j, 8, word);
  tell ();
}

static void
set_count (uint64_t cluster, uint64_t v)
{
  const unsigned order = at.order;
  const uint64_t bit = cluster << order;
  const uint64_t per_block = at.cluster * 8;
  const uint64_t block = hostile_get (&sound[MEMORY_IMAGE], at.reftable
                                      + bit / per_block * 8, 8);
  const uint64_t byte = block + bit % per_block / 8;

  if (order >= 3)
    put (byte, 1 << (order - 3), v);
  else {
    const unsigned mask = ((1U << (1 << order)) - 1) << bit % 8;

    put (byte, 1, (get (byte, 1) & ~mask) | (v << bit % 8 & mask));
  }
}

static void
count_lies (void)
{
  unsigned seen = 0;

  fill_counts ("zero", 1 << at.order, 0);
  fill_counts ("one", 1 << at.order, 1);
  fill_counts ("two", 1 << at.order, 2);
  fill_counts ("most", 1 << at.order, UINT64_MAX);
  fill_counts ("half", 1 << at.order, UINT64_C (1) << ((1 << at.order) - 1));
  /* One cluster of each kind that says it is free, or used twice. */
  for (uint64_t i = 0; i < at.clusters; i++) {
    const unsigned new = at.what[i] & ~seen;

    if (at.what[i] && !new)
      continue;
    seen |= at.what[i];
    begin ("refcount-zero-of-%s", walker_name (at.what[i]));
    set_count (i, 0);
    tell ();
    begin ("refcount-two-of-%s", walker_name (at.what[i]));
    set_count (i, 2);
    tell ();
  }
  begin ("refcounts-zero-of-all-metadata");
  for (uint64_t i = 0; i < at.clusters; i++)
    if (at.what[i] & IS_METADATA)
      set_count (i, 0);
  tell ();
}

/* --- what is in tables --- */

static void
snapshot_lies (void)
{
  const uint64_t s = at.snapshots, entries = get (s + 8, 4);

  if (s == 0)
    return;
  LIES ("snapshot-l1-entries", s + 8, 4, 0, entries - 1, entries + 1,
        at.cluster / 8, 4 << 20, (4 << 20) + 1, UINT32_MAX);
  LIES ("snapshot-id-size", s + 12, 2, 0, 2, 255, UINT16_MAX);
  LIES ("snapshot-name-size", s + 14, 2, 0, 255, UINT16_MAX);
  LIES ("snapshot-extra-size", s + 36, 4, 0, 8, 15, 17, 24, 1024, 1025,
        UINT32_MAX);
  LIES ("snapshot-disk-size", s + 48, 8, 0, 1, at.size + 1, INT64_MAX,
        UINT64_C (1) << 63, UINT64_MAX);
  begin ("snapshot-without-l1");
  put (s, 8, UINT64_C (1) << 63);
  put (s + 8, 4, 0);
  tell ();
  begin ("snapshots-with-one-l1");
  put (60, 4, 2);
  memmove (lying[MEMORY_IMAGE].bytes + s + 64,
           lying[MEMORY_IMAGE].bytes + s, 64);
  tell ();
}

static void
bitmap_lies (void)
{
  const uint64_t b = at.bitmaps, x = at.bitmaps_extension;
  uint64_t end;

  if (b == 0)
    return;
  LIES ("bitmaps", x, 4, 0, 1, 2, 4, 65535, 65536, UINT32_MAX);
  LIES ("bitmaps-reserved", x + 4, 4, 1, UINT32_MAX);
  LIES ("bitmap-directory-size", x + 8, 8, 0, 8, 24, 4096, 64 << 20,
        (64 << 20) + 1, INT64_MAX, UINT64_MAX);
  LIES ("bitmap-table-entries", b + 8, 4, 0, 2, 64, 65, 1 << 27,
        (1 << 27) + 1, UINT32_MAX);
  LIES ("bitmap-flags", b + 12, 4, 0, 1, 3, 4, 6, 7, 8, UINT32_MAX);
  LIES ("bitmap-type", b + 16, 1, 0, 2, 255);
  LIES ("bitmap-granularity", b + 17, 1, 0, 8, 9, 10, 31, 32, 63, 64, 255);
  LIES ("bitmap-name-size", b + 18, 2, 0, 1, 8, 1023, 1024, UINT16_MAX);
  LIES ("bitmap-extra-size", b + 20, 4, 1, 8, 1024, INT32_MAX, UINT32_MAX);
  LIES ("bitmap-name", b + 24, 8, 0, UINT64_C (0x0a1b5b316d414100));
  for (unsigned bit = 0; bit < 64; bit++) {
    if (bit == 1 || (bit >= 9 && bit < 56 && bit % 13))
      continue;
    begin ("bitmap-entry-bit-%u", bit);
    put (at.bitmap_table, 8, get (at.bitmap_table, 8) ^ UINT64_C (1) << bit);
    tell ();
  }
  /* At the end of a file that ends within it, a table and the bits. */
  begin ("bitmap-in-lost-table");
  end = (lying[MEMORY_IMAGE].size + at.cluster - 1) & -at.cluster;
  memory_file_resize (&lying[MEMORY_IMAGE], end + 86);
  put (at.bitmap_table, 8, end);
  put (at.l1, 8, end | COPIED);
  tell ();
  /* Where a name of no length begins within the header of the extension,
   * there are no bitmaps, and so none whose table is the header.
   */
  begin ("bitmaps-behind-name");
  put (8, 8, x - 4);
  put (b, 8, 0);
  tell ();
}

static void
entry_lies (void)
{
  const uint64_t e = at.data_entry;

  for (unsigned bit = 0; bit < 64; bit++) {
    if (bit > 10 && bit < 54 && bit % 9)
      continue;
    begin ("l1-entry-bit-%u", bit);
    put (at.l1, 8, get (at.l1, 8) ^ UINT64_C (1) << bit);
    tell ();
    if (e == 0)
      continue;
    begin ("l2-entry-bit-%u", bit);
    put (e, 8, get (e, 8) ^ UINT64_C (1) << bit);
    tell ();
    if (!at.extended)
      continue;
    begin ("subcluster-bit-%u", bit);
    put (e + 8, 8, get (e + 8, 8) ^ UINT64_C (1) << bit);
    tell ();
  }
  if (at.extended && e) {
    begin ("subclusters-all-and-zero");
    put (e + 8, 8, UINT64_MAX);
    tell ();
    begin ("subclusters-nowhere");
    put (e, 8, 0);
    put (e + 8, 8, UINT32_MAX);
    tell ();
  }
  if (e && !at.external) {
    begin ("two-entries-for-one-cluster");
    put (e + (at.extended ? 16 : 8), 8, get (e, 8));
    if (at.extended)
      put (e + 24, 8, UINT32_MAX);
    tell ();
    begin ("all-entries-for-one-cluster");
    for (uint64_t i = at.l2; i < at.l2 + at.cluster;
         i += at.extended ? 16 : 8) {
      put (i, 8, get (e, 8));
      if (at.extended)
        put (i + 8, 8, UINT32_MAX);
    }
    tell ();
  }
  if (get (36, 4) > 1) {
    begin ("two-l1-entries-for-one-table");
    put (at.l1 + 8, 8, get (at.l1, 8));
    tell ();
  }
  if (at.packed_entry) {
    begin ("compressed-zeros");
    memset (lying[MEMORY_IMAGE].bytes + at.packed, 0, 300);
    tell ();
    begin ("compressed-ones");
    memset (lying[MEMORY_IMAGE].bytes + at.packed, 255, 300);
    tell ();
  }
}

/* Files that are not as long as they should be. */
static void
length_lies (void)
{
  const uint64_t size = sound[MEMORY_IMAGE].size;

  for (uint64_t c = 0; c < size; c += at.cluster) {
    if (c > 16 * at.cluster && c % (4 * at.cluster) && size - c > at.cluster)
      continue;
    begin ("cut-to-%" PRIu64, c);
    memory_file_resize (&lying[MEMORY_IMAGE], c);
    tell ();
    begin ("cut-to-%" PRIu64, c + 300);
    memory_file_resize (&lying[MEMORY_IMAGE], c + 300);
    tell ();
  }
  begin ("longer");
  memory_file_resize (&lying[MEMORY_IMAGE], size + 100000);
  tell ();
  if (!at.external)
    return;
  begin ("data-file-empty");
  memory_file_resize (&lying[MEMORY_DATA], 0);
  tell ();
  begin ("data-file-longer");
  memory_file_resize (&lying[MEMORY_DATA], at.size + 100000);
  tell ();
}

void
lies_tell (void (*fn) (const struct lie *lie))
{
  tell_fn = fn;
  for (base = hostile_bases; base->spec.name; base++) {
    hostile_make (base, sound);
    walker_run (&at, &sound[MEMORY_IMAGE]);
    begin ("the-truth");
    tell ();
    header_lies ();
    extension_lies ();
    pointer_lies ();
    count_lies ();
    snapshot_lies ();
    bitmap_lies ();
    entry_lies ();
    length_lies ();
  }
  walker_free (&at);
  memory_files_free (sound);
  memory_files_free (lying);
}
