/* qcow2ext: the qcow2 format as it lies on disk.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Only structures, masks and limits are here.  Everything is big-endian on
 * disk, so every integer has a type of its own (be16, be32, be64) that the
 * compiler refuses to mix with host integers: be64_get and be64_make are the
 * only doors.  "Spec" is docs/interop/qcow2 in QEMU's source tree.
 */

#ifndef QCOW2_FORMAT_H
#define QCOW2_FORMAT_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { uint16_t raw; } be16;
typedef struct { uint32_t raw; } be32;

/* Read and changed in one step by several threads; not all machines of 32 bits
 * align it for that by themselves.
 */
typedef struct { _Alignas (8) uint64_t raw; } be64;

static inline uint16_t be16_get (be16 v) { return be16toh (v.raw); }
static inline uint32_t be32_get (be32 v) { return be32toh (v.raw); }
static inline uint64_t be64_get (be64 v) { return be64toh (v.raw); }
static inline be16 be16_make (uint16_t v) { return (be16) { htobe16 (v) }; }
static inline be32 be32_make (uint32_t v) { return (be32) { htobe32 (v) }; }
static inline be64 be64_make (uint64_t v) { return (be64) { htobe64 (v) }; }

/* How a file is interpreted. */
enum image_format { IMAGE_QCOW2, IMAGE_RAW };

#define QCOW2_MAGIC UINT32_C (0x514649fb) /* "QFI\xfb" */

/* Limits.  They are QEMU's, so that what QEMU opens, we open. */
#define QCOW2_SECTOR_SIZE 512
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_CLUSTER_SECTORS (1 << (QCOW2_MAX_CLUSTER_BITS - 9))
#define QCOW2_SUBCLUSTERS 32           /* per cluster, with extended L2 */
#define QCOW2_MIN_EXTENDED_BITS 14     /* a subcluster is >= 512 bytes */
#define QCOW2_MAX_L1_BYTES (UINT64_C (32) << 20)
#define QCOW2_MAX_REFTABLE_BYTES (UINT64_C (8) << 20)
#define QCOW2_MAX_REFCOUNT_ORDER 6
#define QCOW2_MAX_NAME 1023            /* backing and data file names */
#define QCOW2_MAX_FORMAT_NAME 15       /* backing format name */
#define QCOW2_MAX_SNAPSHOTS 65536
#define QCOW2_MAX_SNAPSHOT_BYTES (UINT64_C (64) << 20)
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024
#define QCOW2_MAX_BITMAPS 65535
#define QCOW2_MAX_BITMAP_DIR_BYTES (UINT64_C (64) << 20)
#define QCOW2_MAX_BITMAP_BYTES (UINT64_C (512) << 20) /* of its clusters */
#define QCOW2_MAX_BITMAP_ENTRIES (UINT64_C (16) << 20) /* of all tables; ours */
#define QCOW2_MAX_CRYPTO_BYTES (UINT64_C (64) << 20) /* ours; 2 MiB suffice */

/* The header, at offset 0 (spec: "Header"). */
struct qcow2_header {
  be32 magic;
  be32 version;                 /* 2 or 3 */
  be64 backing_file_offset;     /* 0: none; else within the first cluster */
  be32 backing_file_size;       /* 1..1023 */
  be32 cluster_bits;            /* 9..21; 14..21 with extended L2 */
  be64 size;                    /* virtual size, bytes, <= INT64_MAX */
  be32 crypt_method;            /* 0 none, 1 AES, 2 LUKS */
  be32 l1_size;                 /* entries; table <= 32 MiB, covers size */
  be64 l1_table_offset;         /* cluster aligned */
  be64 refcount_table_offset;   /* cluster aligned */
  be32 refcount_table_clusters; /* table of 1 cluster .. 8 MiB */
  be32 nb_snapshots;            /* <= 65536 */
  be64 snapshots_offset;        /* cluster aligned */
  /* Version 2 ends here; the rest has fixed defaults there. */
  be64 incompatible_features;
  be64 compatible_features;
  be64 autoclear_features;
  be32 refcount_order;          /* width is 1 << order bits; <= 6 */
  be32 header_length;           /* 104..cluster size */
  /* Present when header_length says so. */
  uint8_t compression_type;     /* 0 zlib, 1 zstd */
  uint8_t padding[7];
};
#define QCOW2_V2_HEADER_LENGTH 72
#define QCOW2_V3_HEADER_LENGTH 104
static_assert (offsetof (struct qcow2_header, backing_file_offset) == 8, "");
static_assert (offsetof (struct qcow2_header, size) == 24, "");
static_assert (offsetof (struct qcow2_header, l1_table_offset) == 40, "");
static_assert (offsetof (struct qcow2_header, refcount_table_offset) == 48,
               "");
static_assert (offsetof (struct qcow2_header, snapshots_offset) == 64, "");
static_assert (offsetof (struct qcow2_header, incompatible_features)
               == QCOW2_V2_HEADER_LENGTH, "");
static_assert (offsetof (struct qcow2_header, autoclear_features) == 88, "");
static_assert (offsetof (struct qcow2_header, compression_type)
               == QCOW2_V3_HEADER_LENGTH, "");
static_assert (sizeof (struct qcow2_header) == 112, "");

/* Encryption methods. */
enum { QCOW2_CRYPT_NONE = 0, QCOW2_CRYPT_AES = 1, QCOW2_CRYPT_LUKS = 2 };

/* Compression types. */
enum { QCOW2_COMPRESSION_ZLIB = 0, QCOW2_COMPRESSION_ZSTD = 1 };

/* Incompatible features: an unknown one refuses the image. */
#define QCOW2_INCOMPAT_DIRTY UINT64_C (0x01)
#define QCOW2_INCOMPAT_CORRUPT UINT64_C (0x02)
#define QCOW2_INCOMPAT_DATA_FILE UINT64_C (0x04)
#define QCOW2_INCOMPAT_COMPRESSION UINT64_C (0x08)
#define QCOW2_INCOMPAT_EXTENDED_L2 UINT64_C (0x10)
#define QCOW2_INCOMPAT_KNOWN UINT64_C (0x1f)

/* Compatible features. */
#define QCOW2_COMPAT_LAZY_REFCOUNTS UINT64_C (0x01)

/* Autoclear features: an unknown one is cleared before the first write. */
#define QCOW2_AUTOCLEAR_BITMAPS UINT64_C (0x01)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW UINT64_C (0x02)
#define QCOW2_AUTOCLEAR_KNOWN UINT64_C (0x03)

/* A header extension; its data follows, padded to a multiple of 8. */
struct qcow2_extension {
  be32 type;
  be32 length;
};
static_assert (sizeof (struct qcow2_extension) == 8, "");

#define QCOW2_EXT_END UINT32_C (0)
#define QCOW2_EXT_BACKING_FORMAT UINT32_C (0xe2792aca)
#define QCOW2_EXT_FEATURE_NAMES UINT32_C (0x6803f857)
#define QCOW2_EXT_BITMAPS UINT32_C (0x23852875)
#define QCOW2_EXT_CRYPTO UINT32_C (0x0537be77)
#define QCOW2_EXT_DATA_FILE UINT32_C (0x44415441)

/* One entry of the feature name table. */
struct qcow2_feature_name {
  uint8_t type;                 /* 0 incompatible, 1 compatible, 2 autoclear */
  uint8_t bit;                  /* 0..63 */
  char name[46];                /* zero padded, perhaps not terminated */
};
static_assert (sizeof (struct qcow2_feature_name) == 48, "");

/* Data of the bitmaps extension. */
struct qcow2_bitmaps_extension {
  be32 nb_bitmaps;              /* 1..65535 */
  be32 reserved;
  be64 directory_size;          /* bytes, <= 64 MiB */
  be64 directory_offset;        /* cluster aligned */
};
static_assert (sizeof (struct qcow2_bitmaps_extension) == 24, "");

/* Data of the encryption extension: where the LUKS header and its key slots
 * lie, bytes.
 */
struct qcow2_crypto_extension {
  be64 offset;                  /* cluster aligned */
  be64 length;
};
static_assert (sizeof (struct qcow2_crypto_extension) == 16, "");

/* An entry of the bitmap directory; extra data and name follow, padded to 8. */
struct qcow2_bitmap {
  be64 table_offset;            /* cluster aligned */
  be32 table_size;              /* entries */
  be32 flags;
  uint8_t type;                 /* 1: dirty tracking */
  uint8_t granularity_bits;     /* 9..31 */
  be16 name_size;               /* 1..1023 */
  be32 extra_data_size;
};
static_assert (sizeof (struct qcow2_bitmap) == 24, "");
static_assert (offsetof (struct qcow2_bitmap, flags) == 12, "");

#define QCOW2_BITMAP_IN_USE UINT32_C (1)
#define QCOW2_BITMAP_AUTO UINT32_C (2)
#define QCOW2_BITMAP_EXTRA_COMPATIBLE UINT32_C (4)
#define QCOW2_BITMAP_FLAGS UINT32_C (7)
#define QCOW2_BITMAP_TYPE_DIRTY 1
#define QCOW2_MIN_GRANULARITY_BITS 9
#define QCOW2_MAX_GRANULARITY_BITS 31

/* Bitmap table entries: the offset of a cluster of bits; or, where that is
 * 0, whether all its bits are one.
 */
#define QCOW2_BITMAP_OFFSET UINT64_C (0x00fffffffffffe00)
#define QCOW2_BITMAP_ALL_ONES UINT64_C (1)
#define QCOW2_BITMAP_RESERVED UINT64_C (0xff000000000001fe)

/* L1 entries: the offset of an L2 table, and "refcount is exactly one". */
#define QCOW2_L1_OFFSET UINT64_C (0x00fffffffffffe00)
#define QCOW2_L1_RESERVED UINT64_C (0x7f000000000001ff)
#define QCOW2_COPIED (UINT64_C (1) << 63)

/* L2 entries.  "Compressed" is looked at before anything else; the zero flag
 * exists only in version 3 without extended L2.
 */
#define QCOW2_L2_COMPRESSED (UINT64_C (1) << 62)
#define QCOW2_L2_OFFSET UINT64_C (0x00fffffffffffe00)
#define QCOW2_L2_ZERO UINT64_C (1)
#define QCOW2_L2_RESERVED UINT64_C (0x3f000000000001fe) /* if standard */

/* An extended L2 entry: the bitmap's low half says "allocated", the high
 * half "reads as zeros", one bit a subcluster, lowest bit first.
 */
struct qcow2_extended_entry {
  be64 entry;
  be64 bitmap;
};
static_assert (sizeof (struct qcow2_extended_entry) == 16, "");

/* Refcount table entries: bits 9-63 are the offset of a refcount block. */
#define QCOW2_REFTABLE_OFFSET UINT64_C (0xfffffffffffffe00)

/* A snapshot table entry; extra data, ID and name follow, padded to 8. */
struct qcow2_snapshot {
  be64 l1_table_offset;         /* cluster aligned */
  be32 l1_size;                 /* entries */
  be16 id_size;
  be16 name_size;
  be32 date_sec;
  be32 date_nsec;
  be64 vm_clock_nsec;
  be32 vm_state_size;
  be32 extra_data_size;         /* <= 1024 here */
};
static_assert (sizeof (struct qcow2_snapshot) == 40, "");

/* The extra data that is known. */
struct qcow2_snapshot_extra {
  be64 vm_state_size;
  be64 disk_size;
};
static_assert (sizeof (struct qcow2_snapshot_extra) == 16, "");

#endif /* QCOW2_FORMAT_H */
