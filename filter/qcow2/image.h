/* qcow2ext: an open image and the layers under it.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_IMAGE_H
#define QCOW2_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "header.h"
#include "report.h"
#include "store.h"

struct decoded_cache;
struct l2_table;
struct snapshot_list;
struct table_cache;

/* How many layers a chain may have. */
#define IMAGE_MAX_DEPTH 200

enum image_format { IMAGE_QCOW2, IMAGE_RAW };

/* One layer: a qcow2 image, or a raw file at the end of a chain.  All of it
 * is set by image_open and constant from then on, but for the slots of l2,
 * which the table cache guards.
 */
struct image {
  enum image_format format;
  struct store *file;           /* the image file itself */
  struct store *data;           /* where clusters lie: file or data file */
  uint64_t file_size;           /* of the image file, bytes */
  uint64_t size;                /* what the guest sees, bytes */
  struct image *backing;        /* NULL: none */

  /* The rest is for IMAGE_QCOW2. */
  struct header header;
  unsigned cluster_bits;
  unsigned unit_bits;           /* log2 of a subcluster, or of a cluster */
  unsigned l2_bits;             /* log2 of the entries of an L2 table */
  bool extended;                /* L2 entries of 128 bits */
  bool external;                /* data != file */

  be64 *l1;                     /* the active table, or a snapshot's */
  uint32_t l1_entries;
  struct l2_table **l2;         /* l1_entries slots, NULL: not cached */

  struct snapshot_list *snapshots;
  struct table_cache *tables;   /* shared by the layers of a chain */
  struct decoded_cache *decoded; /* likewise */
  struct report_limit limit;
};

static inline uint64_t
image_cluster_size (const struct image *image)
{
  return UINT64_C (1) << image->cluster_bits;
}

/* How the engine reaches files that an image names.  Both return 0 or
 * -errno, having reported what is wrong.  The store belongs to the engine.
 */
struct image_env {
  /* Opens the external data file of the image in store "of".  name is what
   * the image says, or NULL.  depth 0 is the image that is served.
   */
  int (*open_data) (void *opaque, unsigned depth, const struct store *of,
                    const char *name, struct store **store);

  /* Opens the backing file likewise, and says how to interpret it.  name and
   * format are what the image says; either may be NULL.  *store == NULL: the
   * image is to be served without its backing file.
   */
  int (*open_backing) (void *opaque, unsigned depth, const struct store *of,
                       const char *name, const char *format,
                       struct store **store, enum image_format *as);
  void *opaque;
};

struct image_options {
  const struct image_env *env;
  const char *snapshot;         /* ID or name; NULL: the active disk */
  size_t l2_cache_size;         /* bytes, for all layers together */
  size_t decoded_cache_size;    /* likewise */
  bool warn;                    /* report dirty and corrupt images */
};

/* Opens the image in store and all that it refers to.  store belongs to the
 * engine from here on, even if this fails.
 *
 * Returns 0 or -errno, having reported what is wrong.
 */
int image_open (struct store *store, const struct image_options *options,
                struct image **image);
void image_close (struct image *image);

/* One line on what this image is, for people.  The caller frees it. */
char *image_describe (const struct image *image);

/* Reads guest data.  offset + count must lie within image->size.  May be
 * called by many threads at once; takes no lock across I/O.  Returns 0 or
 * -errno.
 */
int image_read (struct image *image, void *buf, size_t count,
                uint64_t offset);

/* Reports the extents of a guest range, merged over the chain.  What cannot
 * be read is reported as data, so that whoever looks gets the error.
 * Neighbours of equal type are not merged.  Returns 0, -errno or what fn
 * returned.
 */
int image_extents (struct image *image, uint64_t count, uint64_t offset,
                   extent_fn fn, void *opaque);

/* Prefetches a guest range into the caches below.  Never fails for want of
 * memory or because something is unreadable: reading will tell.
 */
void image_cache (struct image *image, uint64_t count, uint64_t offset);

#endif /* QCOW2_IMAGE_H */
