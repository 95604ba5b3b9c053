/* qcow2ext: every metadata structure of an image.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * This is the one place that knows which structures an image file holds
 * beside the guest's clusters.  The consistency check counts references with
 * it, the writer learns from it what must not be overwritten: a structure that
 * is added here is known to both.
 */

#ifndef QCOW2_METADATA_WALK_H
#define QCOW2_METADATA_WALK_H

#include <stdint.h>

#include "base/store.h"
#include "disk/bitmap-directory.h"
#include "disk/header.h"
#include "disk/snapshot.h"

enum metadata_kind {
  METADATA_HEADER,
  METADATA_LUKS_HEADER,         /* with its key slots */
  METADATA_REFCOUNT_TABLE,
  METADATA_REFCOUNT_BLOCK,
  METADATA_SNAPSHOT_TABLE,
  METADATA_BITMAP_DIRECTORY,
  METADATA_BITMAP_TABLE,
  METADATA_BITMAP,              /* a chunk of its bits */
  METADATA_L1,
  METADATA_L2,
};

/* A range of the image file, as something there says: nothing is promised of
 * it.  It need not be aligned, nor lie within the file.
 */
struct metadata_range {
  enum metadata_kind kind;
  uint64_t offset, length;      /* bytes */
  const struct snapshot *snapshot; /* L1, L2: whose; NULL: the active one's */

  /* L2, REFCOUNT_BLOCK, BITMAP: the entry that refers to it, and its number.
   * The entry is not 0, but the offset in it may be; length is 0, then.
   */
  uint64_t index, entry;
};

/* What it is called in messages. */
const char *metadata_name (enum metadata_kind kind);

struct metadata_source {
  struct store *file;
  uint64_t file_size;           /* bytes */
  const struct header *header;
  const struct snapshot_list *snapshots; /* or NULL */
  const struct bitmap_list *bitmaps; /* or NULL */
};

/* Is told to go on into the structure (0), to leave out what it refers to
 * (METADATA_SKIP), or to end the walk (anything else).
 */
typedef int (*metadata_fn) (void *opaque, const struct metadata_range *range);
#define METADATA_SKIP 1

/* Calls fn for each range, and for a table before what it refers to: snapshots
 * and their L2 tables come before the active L2 tables, refcounts at the end.
 * Reads the tables as they are on disk; memory and time follow what the file
 * holds, not what it claims.
 * Returns 0, -errno (bitmaps: reported) or what fn returned.
 */
int metadata_walk (const struct metadata_source *source, metadata_fn fn,
                   void *opaque);

#endif /* QCOW2_METADATA_WALK_H */
