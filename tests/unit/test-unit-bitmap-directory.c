/* qcow2ext: which bitmap directories are sound, and which bitmaps usable.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A directory that is not sound leaves the image readable: it is said to be
 * damaged, and is no error.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "base/report.h"
#include "disk/bitmap-directory.h"
#include "store-memory.h"

#define CLUSTER 512
#define DIRECTORY CLUSTER       /* where it is */
#define TABLES (UINT64_C (8) * CLUSTER)
#define GRANULE 512
/* Chunks have 4096 bits; the disk needs three. */
#define DISK (UINT64_C (2) * 4096 * GRANULE + 1)
#define FILE_SIZE (16 * CLUSTER)

/* What an entry of the directory says. */
struct said {
  uint64_t table_offset;
  uint32_t table_size, flags;
  unsigned type, granularity_bits;
  uint32_t extra, name_size;
};
static const struct said sound = { TABLES, 3, 0, 1, 9, 0, 4 };

static bool warned;

static void
keep_warning (enum report_level level, const char *message)
{
  (void) message;
  warned |= level == REPORT_WARNING;
}

/* Writes an entry at pos, whose name consists of a letter, and returns where
 * it ends.
 */
static uint64_t
put_entry (struct memory_file *f, uint64_t pos, const struct said *s,
           char letter)
{
  const struct qcow2_bitmap b = {
    .table_offset = be64_make (s->table_offset),
    .table_size = be32_make (s->table_size),
    .flags = be32_make (s->flags),
    .type = s->type,
    .granularity_bits = s->granularity_bits,
    .name_size = be16_make (s->name_size),
    .extra_data_size = be32_make (s->extra),
  };
  char text[2048];

  CHECK (s->extra + s->name_size <= sizeof text);
  memset (text, '#', s->extra);
  memset (text + s->extra, letter, s->name_size);
  memory_file_write (f, &b, sizeof b, pos);
  memory_file_write (f, text, s->extra + s->name_size, pos + sizeof b);
  return (pos + sizeof b + s->extra + s->name_size + 7) & -UINT64_C (8);
}

static struct header
header_of (uint32_t count, uint64_t bytes)
{
  return (struct header) {
    .cluster_bits = 9, .size = DISK, .has_bitmaps = true,
    .autoclear = QCOW2_AUTOCLEAR_BITMAPS, .nb_bitmaps = count,
    .bitmap_directory_offset = DIRECTORY, .bitmap_directory_size = bytes,
  };
}

static struct bitmap_list *
read_list (struct memory_file *f, const struct header *h)
{
  struct store *s = store_memory_new (f, NULL, MEMORY_IMAGE, false);
  struct bitmap_list *list;

  warned = false;
  CHECK (bitmap_list_read (s, f->size, h, &list) == 0);
  CHECK (list && warned == list->damaged);
  store_close (s);
  return list;
}

static bool
is_damaged (struct memory_file *f, const struct header *h)
{
  struct bitmap_list *list = read_list (f, h);
  const bool damaged = list->damaged;

  bitmap_list_free (list);
  return damaged;
}

/* --- entries --- */

static const struct {
  struct said said;
  bool damaged, usable;
} cases[] = {
  { { TABLES, 3, 0, 1, 9, 0, 4 }, false, true },
  { { TABLES, 3, QCOW2_BITMAP_AUTO, 1, 9, 0, 4 }, false, true },
  { { TABLES, 3, QCOW2_BITMAP_IN_USE, 1, 9, 0, 4 }, false, false },
  { { TABLES, 3, 8, 1, 9, 0, 4 }, true, false },
  /* Extra data, of which nobody knows whether it may be ignored. */
  { { TABLES, 3, 0, 1, 9, 8, 4 }, false, false },
  { { TABLES, 3, QCOW2_BITMAP_EXTRA_COMPATIBLE, 1, 9, 8, 4 }, false, true },
  { { TABLES, 3, QCOW2_BITMAP_EXTRA_COMPATIBLE, 1, 9, 13, 4 }, false, true },
  { { TABLES, 3, QCOW2_BITMAP_EXTRA_COMPATIBLE, 1, 9, 0, 4 }, false, true },
  { { TABLES, 3, 0, 0, 9, 0, 4 }, true, false },
  { { TABLES, 3, 0, 2, 9, 0, 4 }, true, false },
  { { TABLES, 3, 0, 1, 8, 0, 4 }, true, false },
  { { TABLES, 1, 0, 1, 31, 0, 4 }, false, true },
  { { TABLES, 3, 0, 1, 32, 0, 4 }, true, false },
  { { TABLES, 3, 0, 1, 9, 0, 0 }, true, false },
  { { TABLES, 3, 0, 1, 9, 0, 1 }, false, true },
  { { TABLES, 3, 0, 1, 9, 0, 1023 }, false, true },
  { { TABLES, 3, 0, 1, 9, 0, 1024 }, true, false },
  /* Tables: unaligned, at the end of the file, past it, far away. */
  { { TABLES + 1, 3, 0, 1, 9, 0, 4 }, true, false },
  { { TABLES + 8, 3, 0, 1, 9, 0, 4 }, true, false },
  { { TABLES + 256, 3, 0, 1, 9, 0, 4 }, true, false },
  { { FILE_SIZE - CLUSTER, CLUSTER / 8, 0, 1, 9, 0, 4 }, false, true },
  { { FILE_SIZE - CLUSTER, CLUSTER / 8 + 1, 0, 1, 9, 0, 4 }, true, false },
  { { FILE_SIZE, 3, 0, 1, 9, 0, 4 }, true, false },
  { { -(uint64_t) CLUSTER, 3, 0, 1, 9, 0, 4 }, true, false },
  { { -(uint64_t) CLUSTER, 65, 0, 1, 9, 0, 4 }, true, false },
  /* Too short for the disk, which matters only if it is to be used. */
  { { TABLES, 2, 0, 1, 9, 0, 4 }, true, false },
  { { TABLES, 2, QCOW2_BITMAP_IN_USE, 1, 9, 0, 4 }, false, false },
  { { TABLES, 2, 0, 1, 10, 0, 4 }, false, true },
  { { TABLES, 1, 0, 1, 10, 0, 4 }, true, false },
};

/* The entry in question is the second of three. */
static void
test_entries (struct memory_file *f)
{
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const struct said *s = &cases[i].said;
    struct bitmap_list *list;
    const struct bitmap *b;
    struct header h;
    uint64_t second, third, end;

    memory_file_resize (f, DIRECTORY);
    second = put_entry (f, DIRECTORY, &sound, 'a');
    third = put_entry (f, second, s, 'b');
    end = put_entry (f, third, &sound, 'c');
    memory_file_resize (f, FILE_SIZE);
    h = header_of (3, end - DIRECTORY);
    list = read_list (f, &h);
    CHECK (list->damaged == cases[i].damaged);
    CHECK (list->count == (cases[i].damaged ? 1 : 3));
    CHECK (strcmp (list->bitmap[0].name, "aaaa") == 0);
    if (!list->damaged) {
      b = &list->bitmap[1];
      CHECK (strlen (b->name) == s->name_size);
      CHECK (strspn (b->name, "b") == s->name_size);
      CHECK (b->usable == cases[i].usable);
      CHECK (b->flags == s->flags && b->flags_offset == second + 12);
      CHECK (b->granularity_bits == s->granularity_bits);
      CHECK (b->table_offset == s->table_offset);
      CHECK (b->table_entries == s->table_size);
      CHECK (strcmp (list->bitmap[2].name, "cccc") == 0);
    }
    bitmap_list_free (list);
  }
}

/* A name with a zero byte in it. */
static void
test_zero_byte (struct memory_file *f)
{
  struct header h;

  memory_file_resize (f, DIRECTORY);
  h = header_of (1, put_entry (f, DIRECTORY, &sound, 'a') - DIRECTORY);
  memory_file_resize (f, FILE_SIZE);
  CHECK (!is_damaged (f, &h));
  memory_file_zero (f, 1, DIRECTORY + 24 + 3);
  CHECK (is_damaged (f, &h));
}

/* --- the length of the directory --- */

/* The end of the file cuts nothing off that the directory says it has, not even
 * of the zeros behind its last name.
 */
static void
test_cut (struct memory_file *f)
{
  const uint64_t offset = 12 * CLUSTER;
  struct said before = sound;
  struct header h;
  uint64_t end;

  before.table_offset = CLUSTER;
  memory_file_resize (f, 0);
  end = put_entry (f, offset, &before, 'a');
  h = header_of (1, end - offset);
  h.bitmap_directory_offset = offset;
  for (uint64_t cut = 0; cut < 4; cut++) {
    memory_file_resize (f, end - cut);
    CHECK (is_damaged (f, &h) == (cut > 0));
  }
}

static void
test_length (struct memory_file *f)
{
  struct said long_name = sound;
  uint64_t second, end;
  struct header h;

  long_name.name_size = 40;
  memory_file_resize (f, DIRECTORY);
  second = put_entry (f, DIRECTORY, &long_name, 'a');
  end = put_entry (f, second, &long_name, 'b');
  memory_file_resize (f, FILE_SIZE);
  /* Wherever it ends but behind its last entry. */
  for (uint64_t at = DIRECTORY + 1; at < end + 32; at++) {
    h = header_of (2, at - DIRECTORY);
    CHECK (is_damaged (f, &h) == (at != end));
    h.nb_bitmaps = 1;
    CHECK (is_damaged (f, &h) == (at != second));
  }
  /* More bitmaps than there can be take no memory. */
  h = header_of (QCOW2_MAX_BITMAPS, end - DIRECTORY);
  CHECK (is_damaged (f, &h));

  /* The file ends with the directory, or before, or begins behind it. */
  long_name.table_offset = 0;
  put_entry (f, put_entry (f, DIRECTORY, &long_name, 'a'), &long_name, 'b');
  h = header_of (2, end - DIRECTORY);
  memory_file_resize (f, end);
  CHECK (!is_damaged (f, &h));
  memory_file_resize (f, end - 1);
  CHECK (is_damaged (f, &h));
  memory_file_resize (f, DIRECTORY - 1);
  CHECK (is_damaged (f, &h));
}

/* Bitmaps of the largest size that is allowed; then one that is larger, and
 * one that makes all of them together too many.
 */
static void
test_sum (void)
{
  const uint32_t most = QCOW2_MAX_BITMAP_BYTES / CLUSTER;
  const unsigned count = QCOW2_MAX_BITMAP_ENTRIES / most;
  struct memory_file large = { 0 };
  struct said s = sound;
  struct store *store;
  struct bitmap_list *list;
  struct header h;

  s.table_offset = 0;
  for (unsigned more = 0; more < 3; more++) {
    uint64_t end = DIRECTORY;

    s.table_size = most;
    for (unsigned i = 0; i < count - 1; i++)
      end = put_entry (&large, end, &s, 'a');
    s.table_size = more == 2 ? most + 1 : most - 3;
    end = put_entry (&large, end, &s, 'b');
    s.table_size = more == 1 ? 4 : 3;
    end = put_entry (&large, end, &s, 'c');
    h = header_of (count + 1, end - DIRECTORY);
    /* The file is said to be large enough. */
    store = store_memory_new (&large, NULL, MEMORY_IMAGE, false);
    CHECK (bitmap_list_read (store, UINT64_C (1) << 40, &h, &list) == 0);
    CHECK (list->damaged == (more > 0));
    bitmap_list_free (list);
    store_close (store);
  }
  memory_file_free (&large);
}

/* There is no list without the extension or the feature. */
static void
test_none (struct memory_file *f)
{
  struct store *s = store_memory_new (f, NULL, MEMORY_IMAGE, false);
  struct header h = header_of (1, 32);
  struct bitmap_list *list;

  h.has_bitmaps = false;
  CHECK (bitmap_list_read (s, f->size, &h, &list) == 0 && list == NULL);
  h.has_bitmaps = true;
  h.autoclear = 0;
  CHECK (bitmap_list_read (s, f->size, &h, &list) == 0 && list == NULL);
  store_close (s);
}

/* --- tables --- */

static void
test_table (struct memory_file *f)
{
  static const struct { uint64_t entry; bool sound; } entries[] = {
    { 0, true }, { 1, true }, { 2, false }, { 256, false },
    { CLUSTER, true }, { CLUSTER | 1, false },
    { FILE_SIZE - CLUSTER, true }, { FILE_SIZE, false },
    { UINT64_C (1) << 56, false }, { UINT64_C (1) << 63, false },
  };
  const struct bitmap b = {
    .name = (char *) "b", .granularity_bits = 9, .table_offset = TABLES,
    .table_entries = 4,
  };
  struct header h = header_of (1, 32);
  struct store *s = store_memory_new (f, NULL, MEMORY_IMAGE, false);
  be64 *table;

  CHECK (bitmap_chunks (&h, &b) == 3);
  for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
    const be64 entry = be64_make (entries[i].entry);
    const bool is_sound = entries[i].sound;

    CHECK (bitmap_entry_is_sound (&h, FILE_SIZE, entries[i].entry)
           == is_sound);
    memory_file_resize (f, TABLES);
    memory_file_resize (f, FILE_SIZE);
    /* In the last entry that the disk needs, and behind it. */
    memory_file_write (f, &entry, sizeof entry, TABLES + 2 * 8);
    CHECK (bitmap_read_table (s, FILE_SIZE, &h, &b, &table)
           == (is_sound ? 0 : -EINVAL));
    CHECK ((table != NULL) == is_sound);
    if (is_sound)
      CHECK (be64_get (table[2]) == entries[i].entry);
    free (table);
    memory_file_zero (f, 8, TABLES + 2 * 8);
    memory_file_write (f, &entry, sizeof entry, TABLES + 3 * 8);
    CHECK (bitmap_read_table (s, FILE_SIZE, &h, &b, &table) == 0);
    free (table);
  }

  /* Clusters that are larger: an offset must be a multiple of them. */
  h.cluster_bits = 16;
  CHECK (bitmap_entry_is_sound (&h, 1 << 20, 1 << 16));
  CHECK (!bitmap_entry_is_sound (&h, 1 << 20, 1 << 15));
  CHECK (!bitmap_entry_is_sound (&h, 1 << 20, (1 << 16) + 512));
  store_close (s);
}

int
main (void)
{
  struct memory_file f = { 0 };

  report_set_sink (keep_warning);
  test_entries (&f);
  test_zero_byte (&f);
  test_cut (&f);
  test_length (&f);
  test_sum ();
  test_none (&f);
  test_table (&f);
  memory_file_free (&f);
  return EXIT_SUCCESS;
}
