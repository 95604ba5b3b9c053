/* qcow2ext: the image header, read and validated.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An image is untrusted.  The header is read into a private copy, swapped
 * and checked in full, and only then handed out.  No allocation is larger
 * than one cluster (at most 2 MiB), whatever the header claims.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "disk/format.h"
#include "disk/header.h"
#include "disk/header-extensions.h"
#include "disk/table.h"
#include "base/report.h"

#define bad(fmt, ...)                                                   \
  (report_error ("%s: " fmt, store->name, ##__VA_ARGS__), -EINVAL)
#define unsupported(fmt, ...)                                           \
  (report_error ("%s: " fmt, store->name, ##__VA_ARGS__), -ENOTSUP)

unsigned
header_l2_coverage_bits (const struct header *h)
{
  return h->cluster_bits + h->cluster_bits - (header_is_extended (h) ? 4 : 3);
}

/* Finds the name of an incompatible feature in the feature name table.
 * Returns false if the image does not say.
 */
static bool
feature_name (const uint8_t *table, size_t len, unsigned bit, char name[47])
{
  const struct qcow2_feature_name *f = (const void *) table;

  for (size_t i = 0; i < len / sizeof *f; i++) {
    if (f[i].type == 0 && f[i].bit == bit) {
      memcpy (name, f[i].name, sizeof f[i].name);
      name[sizeof f[i].name] = '\0';
      return name[0] != '\0';
    }
  }
  return false;
}

static int
refuse_unknown_features (const struct store *store, uint64_t unknown,
                         const uint8_t *names, size_t names_len)
{
  char name[47];
  unsigned bit = __builtin_ctzll (unknown);

  if (names && feature_name (names, names_len, bit, name))
    return unsupported ("the image uses a feature that is not supported: "
                        "%s (incompatible feature bit %u)", name, bit);
  return unsupported ("the image uses a feature that is not supported: "
                      "incompatible feature bit %u (unknown)", bit);
}

static int
check_encryption (const struct store *store, uint32_t method,
                  struct header *h)
{
  switch (method) {
  case QCOW2_CRYPT_NONE:
    return 0;
  case QCOW2_CRYPT_AES:
    return unsupported ("the image is encrypted with AES in the old way "
                        "(encrypt.format=aes), which is not supported; "
                        "convert it first: qemu-img convert "
                        "--object secret,id=s,file=PASSPHRASE --image-opts "
                        "driver=qcow2,encrypt.format=aes,"
                        "encrypt.key-secret=s,file.filename=IMAGE "
                        "-O qcow2 NEW");
  case QCOW2_CRYPT_LUKS:
    h->encrypted = true;
    return 0;
  default:
    return unsupported ("the image is encrypted by an unknown method (%"
                        PRIu32 ")", method);
  }
}

static int
check_compression (const struct store *store, const struct header *h)
{
  bool bit = h->incompatible & QCOW2_INCOMPAT_COMPRESSION;

  if (bit != (h->compression_type != QCOW2_COMPRESSION_ZLIB))
    return bad ("the compression type (%u) does not agree with the "
                "compression feature bit (%d)", h->compression_type, bit);
  if (h->compression_type > QCOW2_COMPRESSION_ZSTD)
    return unsupported ("the compression type %u is not supported",
                        h->compression_type);
  return 0;
}

/* Tables: the size of each, and where it may lie. */
static int
check_tables (const struct store *store, const struct header *h)
{
  const unsigned bits = h->cluster_bits;
  const unsigned coverage = header_l2_coverage_bits (h);
  uint64_t needed;
  int r;

  if (h->size > INT64_MAX)
    return bad ("the virtual size is out of range (%" PRIu64 ")", h->size);

  r = table_check_place (store, bits, "L1 table", h->l1_offset,
                         h->l1_entries, sizeof (be64), QCOW2_MAX_L1_BYTES);
  if (r < 0)
    return r;
  needed = (h->size >> coverage)
    + !!(h->size & ((UINT64_C (1) << coverage) - 1));
  if (h->l1_entries < needed)
    return bad ("the L1 table is too small for the virtual size (%" PRIu32
                " entries, %" PRIu64 " are needed)", h->l1_entries, needed);
  if (h->l1_entries && h->l1_offset == 0)
    return bad ("the L1 table overlaps the header");

  if (h->reftable_clusters == 0)
    return bad ("the image has no refcount table");
  r = table_check_place (store, bits, "refcount table", h->reftable_offset,
                         (uint64_t) h->reftable_clusters << bits, 1,
                         QCOW2_MAX_REFTABLE_BYTES);
  if (r < 0)
    return r;
  if (h->reftable_offset == 0)
    return bad ("the refcount table overlaps the header");

  return table_check_place (store, bits, "snapshot table",
                            h->snapshots_offset, h->nb_snapshots,
                            sizeof (struct qcow2_snapshot),
                            QCOW2_MAX_SNAPSHOTS
                            * sizeof (struct qcow2_snapshot));
}

/* What the features say together. */
static int
check_features (const struct store *store, const struct header *h)
{
  if (h->encrypted && h->crypto_length == 0)
    return bad ("the image is encrypted with LUKS, but does not say where the "
                "LUKS header is");
  if (header_is_raw (h) && !header_has_data_file (h))
    return bad ("the image claims a raw external data file, but it has no "
                "external data file");
  if (header_is_raw (h) && h->backing_file)
    return bad ("the image has a raw external data file and a backing file, "
                "which exclude each other");
  if (header_is_extended (h) && h->cluster_bits < QCOW2_MIN_EXTENDED_BITS)
    return bad ("extended L2 entries need clusters of at least 16 KiB");
  /* Against the spec, but nobody who only reads is harmed. */
  if ((h->autoclear & QCOW2_AUTOCLEAR_BITMAPS) && !h->has_bitmaps)
    report_warning ("%s: the bitmaps feature bit is set, but there is no "
                    "bitmaps extension", store->name);
  if (h->data_file && !header_has_data_file (h))
    report_warning ("%s: the image names an external data file but does not "
                    "use one; the name is ignored", store->name);
  return 0;
}

/* Swaps the fixed part of the header. */
static int
read_fixed (const struct store *store, const struct qcow2_header *disk,
            uint64_t file_size, struct header *h)
{
  if (be32_get (disk->magic) != QCOW2_MAGIC)
    return bad ("not a qcow2 image (the magic number is missing)");
  if (file_size < QCOW2_V2_HEADER_LENGTH)
    return bad ("the header is cut short by the end of the file");

  h->version = be32_get (disk->version);
  if (h->version < 2 || h->version > 3)
    return unsupported ("qcow2 version %u is not supported", h->version);

  h->cluster_bits = be32_get (disk->cluster_bits);
  if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS
      || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
    return bad ("the cluster size is out of range (2^%u bytes, allowed are "
                "2^%d to 2^%d)", h->cluster_bits, QCOW2_MIN_CLUSTER_BITS,
                QCOW2_MAX_CLUSTER_BITS);

  h->size = be64_get (disk->size);
  h->l1_entries = be32_get (disk->l1_size);
  h->l1_offset = be64_get (disk->l1_table_offset);
  h->reftable_offset = be64_get (disk->refcount_table_offset);
  h->reftable_clusters = be32_get (disk->refcount_table_clusters);
  h->nb_snapshots = be32_get (disk->nb_snapshots);
  h->snapshots_offset = be64_get (disk->snapshots_offset);

  if (h->version == 2) {
    h->refcount_order = 4;
    h->header_length = QCOW2_V2_HEADER_LENGTH;
    return 0;
  }

  h->incompatible = be64_get (disk->incompatible_features);
  h->compatible = be64_get (disk->compatible_features);
  h->autoclear = be64_get (disk->autoclear_features);
  h->refcount_order = be32_get (disk->refcount_order);
  if (h->refcount_order > QCOW2_MAX_REFCOUNT_ORDER)
    return bad ("the refcount width is out of range (2^%u bits, at most 64 "
                "bits are allowed)", h->refcount_order);

  h->header_length = be32_get (disk->header_length);
  if (h->header_length < QCOW2_V3_HEADER_LENGTH
      || h->header_length > UINT32_C (1) << h->cluster_bits)
    return bad ("the header length is out of range (%" PRIu32 ")",
                h->header_length);
  if (h->header_length > offsetof (struct qcow2_header, compression_type))
    h->compression_type = disk->compression_type;

  if (file_size < h->header_length)
    return bad ("the header is cut short by the end of the file");
  return 0;
}

static int
report_unreadable (const struct store *store, int error)
{
  report_error ("%s: the header cannot be read: %s", store->name,
                strerror (-error));
  return error;
}

/* Reads the rest of the first cluster: extensions and backing file name. */
static int
read_variable (struct store *store, const struct qcow2_header *disk,
               uint64_t file_size, struct header *h)
{
  const uint64_t cluster_size = UINT64_C (1) << h->cluster_bits;
  const uint64_t backing_offset = be64_get (disk->backing_file_offset);
  const uint64_t backing_size = be32_get (disk->backing_file_size);
  const uint64_t unknown = h->incompatible & ~QCOW2_INCOMPAT_KNOWN;
  /* Nothing past the end of the file is worth reading. */
  const uint64_t len = file_size < cluster_size ? file_size : cluster_size;
  CLEANUP_FREE uint8_t *cluster = NULL;
  const uint8_t *names;
  size_t names_len, ext_end;
  int r;

  cluster = malloc (len);
  if (cluster == NULL)
    return -ENOMEM;
  r = store_pread (store, cluster, len, 0);
  if (r < 0)
    return report_unreadable (store, r);

  if (backing_offset > cluster_size)
    return bad ("the offset of the backing file name is out of range (0x%"
                PRIx64 ")", backing_offset);
  if (backing_offset && backing_offset < h->header_length)
    return bad ("the backing file name overlaps the header");
  ext_end = backing_offset && backing_offset < len ? backing_offset : len;

  r = header_read_extensions (store, h, cluster, h->header_length, ext_end,
                              &names, &names_len);
  /* An image of the future may have extensions that look wrong to us: the
   * unknown feature is the better message.
   */
  if (unknown)
    return refuse_unknown_features (store, unknown, names, names_len);
  if (r < 0)
    return r;

  if (backing_offset) {
    if (backing_size > cluster_size - backing_offset)
      return bad ("the backing file name does not fit into the first cluster");
    if (backing_offset + backing_size > len)
      return bad ("the backing file name is cut short by the end of the file");
    r = header_copy_name (store, "backing file name",
                          cluster + backing_offset, backing_size,
                          QCOW2_MAX_NAME, &h->backing_file);
  }
  return r;
}

int
header_read (struct store *store, struct header *result)
{
  struct qcow2_header disk;
  struct header h = { 0 };
  uint64_t file_size;
  int r;

  if ((r = store_get_size (store, &file_size)) < 0
      || (r = store_pread (store, &disk, sizeof disk, 0)) < 0)
    return report_unreadable (store, r);

  if ((r = read_fixed (store, &disk, file_size, &h)) < 0
      || (r = check_encryption (store, be32_get (disk.crypt_method), &h)) < 0
      || (r = read_variable (store, &disk, file_size, &h)) < 0
      || (r = check_compression (store, &h)) < 0
      || (r = check_features (store, &h)) < 0
      || (r = check_tables (store, &h)) < 0) {
    header_free (&h);
    return r;
  }

  *result = h;
  return 0;
}

void
header_free (struct header *h)
{
  free (h->backing_file);
  free (h->backing_format);
  free (h->data_file);
  memset (h, 0, sizeof *h);
}
