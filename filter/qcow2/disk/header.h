/* qcow2ext: the image header, read and validated.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_HEADER_H
#define QCOW2_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/format.h"
#include "base/store.h"

/* Every field has been checked against the limits of format.h: offsets are
 * aligned, offset + length fits in int64_t, names hold no NUL.  That a table
 * lies within the file is not promised.
 */
struct header {
  unsigned version;
  unsigned cluster_bits;
  uint64_t size;                /* virtual size in bytes */
  uint64_t l1_offset;           /* bytes */
  uint32_t l1_entries;
  uint64_t reftable_offset;     /* bytes */
  uint32_t reftable_clusters;
  unsigned refcount_order;
  uint64_t snapshots_offset;    /* bytes */
  uint32_t nb_snapshots;
  uint32_t header_length;       /* bytes; 72 for version 2 */
  uint64_t incompatible, compatible, autoclear;
  unsigned compression_type;

  char *backing_file;           /* NULL: no backing file */
  char *backing_format;         /* NULL: not said */
  char *data_file;              /* NULL: no name stored */

  bool encrypted;               /* with LUKS, whose header is in this range
                                   of the image file: */
  uint64_t crypto_offset, crypto_length; /* bytes */

  bool has_bitmaps;             /* the bitmaps extension is present */
  uint32_t nb_bitmaps;
  uint64_t bitmap_directory_offset, bitmap_directory_size; /* bytes */
};

/* Reads the header of the image in store, with its extensions, into *h.
 * Nothing is stored in *h unless all of it is valid.  On success the caller
 * frees it with header_free.
 *
 * Returns 0 or -errno (-EINVAL: not a valid image, -ENOTSUP: a feature that
 * we do not have), having reported what is wrong.
 *
 * Spec: "Header", "Header extensions".
 */
int header_read (struct store *store, struct header *h);
void header_free (struct header *h);

/* Bytes of guest disk that one L2 table describes, as a power of two. */
unsigned header_l2_coverage_bits (const struct header *h);

static inline bool
header_has_data_file (const struct header *h)
{
  return h->incompatible & QCOW2_INCOMPAT_DATA_FILE;
}

static inline bool
header_is_extended (const struct header *h)
{
  return h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
}

static inline bool
header_is_raw (const struct header *h)
{
  return h->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW;
}

#endif /* QCOW2_HEADER_H */
