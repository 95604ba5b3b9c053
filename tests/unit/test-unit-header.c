/* qcow2ext: which headers are accepted, up to the limits.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A sound header is changed in one place at a time, and what becomes of it is
 * compared, with what the message says.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "base/report.h"
#include "disk/header.h"
#include "store-memory.h"

#define CLUSTER 512
#define REACH (UINT64_C (64) * CLUSTER) /* of an L2 table */
#define EXTENSIONS QCOW2_V3_HEADER_LENGTH

static char last_message[500];

static void
keep_message (enum report_level level, const char *message)
{
  (void) level;
  snprintf (last_message, sizeof last_message, "%s", message);
}

static void
put (struct memory_file *f, uint64_t at, unsigned bytes, uint64_t value)
{
  const be64 v = be64_make (value << (64 - 8 * bytes));

  memory_file_write (f, &v, bytes, at);
}

#define PUT(f, field, value)                                            \
  put (f, offsetof (struct qcow2_header, field),                        \
       sizeof ((struct qcow2_header *) 0)->field, value)

/* Four clusters: header, refcount table, L1 table, and one more. */
static void
make_sound (struct memory_file *f)
{
  memory_file_free (f);
  memory_file_resize (f, 4 * CLUSTER);
  PUT (f, magic, QCOW2_MAGIC);
  PUT (f, version, 3);
  PUT (f, cluster_bits, 9);
  PUT (f, size, 2 * REACH);
  PUT (f, l1_size, 2);
  PUT (f, l1_table_offset, 2 * CLUSTER);
  PUT (f, refcount_table_offset, CLUSTER);
  PUT (f, refcount_table_clusters, 1);
  PUT (f, refcount_order, 4);
  PUT (f, header_length, QCOW2_V3_HEADER_LENGTH);
}

static int
read_header (struct memory_file *f, struct header *h)
{
  struct store *s = store_memory_new (f, NULL, MEMORY_IMAGE, false);
  int r;

  last_message[0] = '\0';
  r = header_read (s, h);
  store_close (s);
  return r;
}

/* Reads it and drops what was read. */
static int
try (struct memory_file *f)
{
  struct header h;
  const int r = read_header (f, &h);

  if (r == 0)
    header_free (&h);
  return r;
}

static bool
says (const char *part)
{
  return strstr (last_message, part) != NULL;
}

static bool
says_nothing (void)
{
  return last_message[0] == '\0';
}

/* --- the fixed part --- */

#define AT(field) offsetof (struct qcow2_header, field), \
  sizeof ((struct qcow2_header *) 0)->field

static const struct {
  size_t at, bytes;
  uint64_t value;
  int result;
  const char *message;          /* part of it; NULL: none */
} cases[] = {
  { AT (magic), QCOW2_MAGIC + 1, -EINVAL, "not a qcow2 image" },
  { AT (version), 1, -ENOTSUP, "version 1" },
  { AT (version), 2, 0, NULL },
  { AT (version), 4, -ENOTSUP, "version 4" },
  { AT (cluster_bits), 8, -EINVAL, "2^8 bytes" },
  { AT (cluster_bits), 22, -EINVAL, "2^22 bytes" },
  { AT (size), 0, 0, NULL },
  { AT (size), 2 * REACH - 1, 0, NULL },
  { AT (size), 2 * REACH + 1, -EINVAL, "3 are needed" },
  { AT (size), INT64_MAX, -EINVAL, "too small" },
  { AT (size), (uint64_t) INT64_MAX + 1, -EINVAL, "virtual size" },
  { AT (crypt_method), 1, -ENOTSUP, "AES" },
  { AT (crypt_method), 2, -EINVAL, "does not say where" },
  { AT (crypt_method), 3, -ENOTSUP, "unknown method (3)" },
  { AT (l1_size), 1, -EINVAL, "L1 table is too small" },
  { AT (l1_size), QCOW2_MAX_L1_BYTES / 8, 0, NULL },
  { AT (l1_size), QCOW2_MAX_L1_BYTES / 8 + 1, -EINVAL,
    "L1 table is too large" },
  { AT (l1_table_offset), 0, -EINVAL, "L1 table overlaps the header" },
  { AT (l1_table_offset), 2 * CLUSTER + 8, -EINVAL, "not aligned" },
  { AT (l1_table_offset), (uint64_t) INT64_MAX - 511, 0, NULL },
  { AT (l1_table_offset), (uint64_t) INT64_MAX + 1, -EINVAL, "out of range" },
  { AT (refcount_table_offset), 0, -EINVAL,
    "refcount table overlaps the header" },
  { AT (refcount_table_offset), CLUSTER + 1, -EINVAL, "not aligned" },
  { AT (refcount_table_clusters), 0, -EINVAL, "no refcount table" },
  { AT (refcount_table_clusters), QCOW2_MAX_REFTABLE_BYTES / CLUSTER, 0,
    NULL },
  { AT (refcount_table_clusters), QCOW2_MAX_REFTABLE_BYTES / CLUSTER + 1,
    -EINVAL, "refcount table is too large" },
  { AT (nb_snapshots), QCOW2_MAX_SNAPSHOTS, 0, NULL },
  { AT (nb_snapshots), QCOW2_MAX_SNAPSHOTS + 1, -EINVAL,
    "snapshot table is too large" },
  { AT (snapshots_offset), 1, -EINVAL, "not aligned" },
  { AT (refcount_order), 6, 0, NULL },
  { AT (refcount_order), 7, -EINVAL, "2^7 bits" },
  { AT (header_length), 103, -EINVAL, "header length" },
  { AT (header_length), 105, 0, NULL },
  { AT (header_length), CLUSTER, 0, NULL },
  { AT (header_length), CLUSTER + 1, -EINVAL, "header length" },
  { AT (incompatible_features), QCOW2_INCOMPAT_COMPRESSION, -EINVAL,
    "compression type (0) does not agree" },
  { AT (incompatible_features), QCOW2_INCOMPAT_EXTENDED_L2, -EINVAL,
    "at least 16 KiB" },
  { AT (incompatible_features), 0x20, -ENOTSUP,
    "incompatible feature bit 5 (unknown)" },
  { AT (incompatible_features), UINT64_C (1) << 63, -ENOTSUP,
    "incompatible feature bit 63 (unknown)" },
  { AT (compatible_features), UINT64_MAX, 0, NULL },
  { AT (autoclear_features), QCOW2_AUTOCLEAR_DATA_FILE_RAW, -EINVAL,
    "no external data file" },
  { AT (autoclear_features), QCOW2_AUTOCLEAR_BITMAPS, 0,
    "no bitmaps extension" },
  { AT (autoclear_features), ~QCOW2_AUTOCLEAR_KNOWN, 0, NULL },
  { AT (backing_file_offset), 103, -EINVAL, "overlaps the header" },
  { AT (backing_file_offset), 104, 0, NULL }, /* no bytes: none */
  { AT (backing_file_offset), CLUSTER, 0, NULL },
  { AT (backing_file_offset), CLUSTER + 1, -EINVAL, "out of range" },
};

static void
test_fixed (struct memory_file *f)
{
  struct header h;

  make_sound (f);
  CHECK (read_header (f, &h) == 0 && says_nothing ());
  CHECK (h.version == 3 && h.cluster_bits == 9 && h.size == 2 * REACH);
  CHECK (h.l1_offset == 2 * CLUSTER && h.l1_entries == 2);
  CHECK (h.reftable_offset == CLUSTER && h.reftable_clusters == 1);
  CHECK (h.backing_file == NULL && !h.has_bitmaps && !h.encrypted);
  header_free (&h);

  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    make_sound (f);
    put (f, cases[i].at, cases[i].bytes, cases[i].value);
    CHECK (try (f) == cases[i].result);
    CHECK (cases[i].message ? says (cases[i].message) : says_nothing ());
  }
}

/* Extended L2 entries are twice as large, so that a table reaches half as
 * far.
 */
static void
test_extended (struct memory_file *f)
{
  const uint64_t cluster = 16384, reach = cluster / 16 * cluster;
  struct header h;

  for (unsigned more = 0; more <= 1; more++) {
    make_sound (f);
    PUT (f, cluster_bits, 14);
    PUT (f, l1_table_offset, 2 * cluster);
    PUT (f, refcount_table_offset, cluster);
    PUT (f, incompatible_features, QCOW2_INCOMPAT_EXTENDED_L2);
    PUT (f, size, 2 * reach + more);
    CHECK (read_header (f, &h) == (more ? -EINVAL : 0));
  }
  PUT (f, incompatible_features, 0);
  PUT (f, size, 4 * reach);
  CHECK (read_header (f, &h) == 0);
  CHECK (header_l2_coverage_bits (&h) == 25);
  header_free (&h);
}

/* A file that ends early. */
static void
test_short (struct memory_file *f)
{
  make_sound (f);
  PUT (f, header_length, 112);
  memory_file_resize (f, 112);
  CHECK (try (f) == 0);
  memory_file_resize (f, 111);
  CHECK (try (f) == -EINVAL && says ("cut short"));
  make_sound (f);
  memory_file_resize (f, QCOW2_V3_HEADER_LENGTH);
  CHECK (try (f) == 0);
  PUT (f, version, 2);
  memory_file_resize (f, QCOW2_V2_HEADER_LENGTH);
  CHECK (try (f) == 0);
  memory_file_resize (f, QCOW2_V2_HEADER_LENGTH - 1);
  CHECK (try (f) == -EINVAL && says ("cut short"));
}

static void
test_compression (struct memory_file *f)
{
  for (unsigned type = 0; type < 4; type++) {
    struct header h;

    make_sound (f);
    PUT (f, header_length, 112);
    PUT (f, compression_type, type);
    CHECK (try (f) == (type ? -EINVAL : 0));
    PUT (f, incompatible_features, QCOW2_INCOMPAT_COMPRESSION);
    if (type != QCOW2_COMPRESSION_ZSTD) {
      CHECK (try (f) == (type ? -ENOTSUP : -EINVAL));
      continue;
    }
    CHECK (read_header (f, &h) == 0);
    CHECK (h.compression_type == QCOW2_COMPRESSION_ZSTD);
    header_free (&h);
  }
}

static void
test_backing (struct memory_file *f)
{
  char name[200];
  struct header h;

  memset (name, 'b', sizeof name);
  make_sound (f);
  PUT (f, backing_file_offset, CLUSTER - sizeof name);
  PUT (f, backing_file_size, sizeof name);
  memory_file_write (f, name, sizeof name, CLUSTER - sizeof name);
  CHECK (read_header (f, &h) == 0);
  CHECK (strlen (h.backing_file) == sizeof name);
  CHECK (memcmp (h.backing_file, name, sizeof name) == 0);
  header_free (&h);
  PUT (f, backing_file_size, sizeof name + 1);
  CHECK (try (f) == -EINVAL && says ("does not fit"));
  PUT (f, backing_file_size, sizeof name);
  memory_file_resize (f, CLUSTER - 1);
  CHECK (try (f) == -EINVAL && says ("cut short"));
}

/* --- extensions --- */

static uint64_t
put_extension (struct memory_file *f, uint64_t pos, uint32_t type,
               const void *data, uint32_t length)
{
  put (f, pos, 4, type);
  put (f, pos + 4, 4, length);
  memory_file_write (f, data, length, pos + 8);
  return pos + 8 + ((length + 7) & -8u);
}

/* A feature name is that of the bit among those that are incompatible. */
static void
test_feature_names (struct memory_file *f)
{
  static const struct qcow2_feature_name names[] = {
    { 0, 9, "x" }, { 1, 5, "compatible" }, { 2, 5, "autoclear" },
    { 0, 6, "another" }, { 0, 5, "wanted" }, { 0, 5, "too late" },
    { 0, 8, "" },
    { 0, 7, "a name that fills its field to the last byte.." },
  };

  for (unsigned bit = 5; bit < 10; bit++) {
    static const char *const said[] = {
      "not supported: wanted (incompatible feature bit 5)",
      "not supported: another (incompatible feature bit 6)",
      "not supported: a name that fills its field to the last byte.. (",
      "not supported: incompatible feature bit 8 (unknown)",
      "not supported: x (incompatible feature bit 9)",
    };

    make_sound (f);
    put_extension (f, EXTENSIONS, QCOW2_EXT_FEATURE_NAMES, names,
                   sizeof names);
    PUT (f, incompatible_features, UINT64_C (1) << bit);
    CHECK (try (f) == -ENOTSUP && says (said[bit - 5]));
  }
}

static void
test_bitmaps (struct memory_file *f)
{
  static const struct {
    uint32_t number, reserved;
    uint64_t bytes, offset;
    int result;
    const char *message;
  } bitmaps[] = {
    { 1, 0, 32, CLUSTER, 0, NULL },
    { QCOW2_MAX_BITMAPS, 0, QCOW2_MAX_BITMAP_DIR_BYTES, CLUSTER, 0, NULL },
    { 0, 0, 32, CLUSTER, -EINVAL, "number of bitmaps" },
    { QCOW2_MAX_BITMAPS + 1, 0, 32, CLUSTER, -EINVAL, "number of bitmaps" },
    { 1, 1, 32, CLUSTER, -EINVAL, "reserved" },
    { 1, 0, 0, CLUSTER, -EINVAL, "directory is empty" },
    { 1, 0, QCOW2_MAX_BITMAP_DIR_BYTES + 1, CLUSTER, -EINVAL, "too large" },
    { 1, 0, 32, CLUSTER + 8, -EINVAL, "not aligned" },
  };

  for (size_t i = 0; i < sizeof bitmaps / sizeof bitmaps[0]; i++) {
    const struct qcow2_bitmaps_extension ext = {
      be32_make (bitmaps[i].number), be32_make (bitmaps[i].reserved),
      be64_make (bitmaps[i].bytes), be64_make (bitmaps[i].offset),
    };
    struct header h;

    make_sound (f);
    put_extension (f, EXTENSIONS, QCOW2_EXT_BITMAPS, &ext, sizeof ext);
    CHECK (try (f) == 0);       /* it means nothing without the feature */
    PUT (f, autoclear_features, QCOW2_AUTOCLEAR_BITMAPS);
    CHECK (read_header (f, &h) == bitmaps[i].result);
    if (bitmaps[i].message) {
      CHECK (says (bitmaps[i].message));
      continue;
    }
    CHECK (h.has_bitmaps && h.nb_bitmaps == bitmaps[i].number);
    CHECK (h.bitmap_directory_size == bitmaps[i].bytes);
    CHECK (h.bitmap_directory_offset == bitmaps[i].offset);
    header_free (&h);

    put_extension (f, EXTENSIONS, QCOW2_EXT_BITMAPS, &ext, sizeof ext - 1);
    CHECK (try (f) == -EINVAL && says ("invalid length (23)"));
    put_extension (f, put_extension (f, EXTENSIONS, QCOW2_EXT_BITMAPS, &ext,
                                     sizeof ext),
                   QCOW2_EXT_BITMAPS, &ext, sizeof ext);
    CHECK (try (f) == -EINVAL && says ("given twice"));
  }
}

static void
test_crypto (struct memory_file *f)
{
  static const struct {
    uint64_t offset, length;
    int result;
    const char *message;
  } crypto[] = {
    { CLUSTER, 1, 0, NULL },
    { CLUSTER, QCOW2_MAX_CRYPTO_BYTES, 0, NULL },
    { CLUSTER, QCOW2_MAX_CRYPTO_BYTES + 1, -EINVAL, "too large" },
    { 0, 1, -EINVAL, "overlaps the header" },
    { CLUSTER, 0, -EINVAL, "is empty" },
    { CLUSTER + 1, 1, -EINVAL, "not aligned" },
  };

  for (size_t i = 0; i < sizeof crypto / sizeof crypto[0]; i++) {
    const struct qcow2_crypto_extension ext = {
      be64_make (crypto[i].offset), be64_make (crypto[i].length),
    };

    make_sound (f);
    put_extension (f, EXTENSIONS, QCOW2_EXT_CRYPTO, &ext, sizeof ext);
    CHECK (try (f) == -EINVAL && says ("not encrypted"));
    PUT (f, crypt_method, QCOW2_CRYPT_LUKS);
    CHECK (try (f) == crypto[i].result);
    if (crypto[i].message)
      CHECK (says (crypto[i].message));
  }
}

/* Where extensions end, and how long names may be. */
static void
test_extensions (struct memory_file *f)
{
  static const char text[CLUSTER] = "raw";
  struct header h;
  uint64_t pos;

  /* Up to the last byte of the cluster, without an end mark; and one more. */
  for (unsigned more = 0; more < 2; more++) {
    make_sound (f);
    put_extension (f, EXTENSIONS, 0x12345678, text,
                   CLUSTER - EXTENSIONS - 8 + more);
    CHECK (try (f) == (more ? -EINVAL : 0));
  }
  CHECK (says ("0x12345678 is too long"));

  /* Padding is skipped, the end mark ends, what is behind it is not read. */
  make_sound (f);
  pos = put_extension (f, EXTENSIONS, 0x12345678, text, 9);
  pos = put_extension (f, pos, QCOW2_EXT_BACKING_FORMAT, "format", 6);
  pos = put_extension (f, pos, 0, "", 0);
  put_extension (f, pos, QCOW2_EXT_BACKING_FORMAT, "another", 7);
  CHECK (read_header (f, &h) == 0);
  CHECK (strcmp (h.backing_format, "format") == 0);
  header_free (&h);

  for (unsigned n = 15; n <= 16; n++) {
    make_sound (f);
    put_extension (f, EXTENSIONS, QCOW2_EXT_BACKING_FORMAT,
                   "sixteen letters.", n);
    CHECK (try (f) == (n == 15 ? 0 : -EINVAL));
  }
  CHECK (says ("too long (16 bytes"));

  make_sound (f);
  put_extension (f, EXTENSIONS, QCOW2_EXT_BACKING_FORMAT, "raw\0\0", 5);
  CHECK (read_header (f, &h) == 0 && strcmp (h.backing_format, "raw") == 0);
  header_free (&h);
  put_extension (f, EXTENSIONS, QCOW2_EXT_BACKING_FORMAT, "r\0aw", 4);
  CHECK (try (f) == -EINVAL && says ("NUL"));
  pos = put_extension (f, EXTENSIONS, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
  put_extension (f, pos, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
  CHECK (try (f) == -EINVAL && says ("given twice"));

  /* A data file's name where there is no data file, and where there is. */
  make_sound (f);
  put_extension (f, EXTENSIONS, QCOW2_EXT_DATA_FILE, "data", 4);
  CHECK (read_header (f, &h) == 0 && says ("does not use one"));
  header_free (&h);
  PUT (f, incompatible_features, QCOW2_INCOMPAT_DATA_FILE);
  PUT (f, autoclear_features, QCOW2_AUTOCLEAR_DATA_FILE_RAW);
  CHECK (read_header (f, &h) == 0 && says_nothing ());
  CHECK (strcmp (h.data_file, "data") == 0);
  CHECK (header_has_data_file (&h) && header_is_raw (&h));
  header_free (&h);
  PUT (f, backing_file_offset, 400);
  PUT (f, backing_file_size, 4);
  memory_file_write (f, "back", 4, 400);
  CHECK (try (f) == -EINVAL && says ("exclude each other"));
}

int
main (void)
{
  struct memory_file f = { 0 };

  report_set_sink (keep_message);
  test_fixed (&f);
  test_extended (&f);
  test_short (&f);
  test_compression (&f);
  test_backing (&f);
  test_feature_names (&f);
  test_bitmaps (&f);
  test_crypto (&f);
  test_extensions (&f);
  memory_file_free (&f);
  return EXIT_SUCCESS;
}
