/* qcow2ext: an open image and the layers under it.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_IMAGE_H
#define QCOW2_IMAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/format.h"
#include "disk/header.h"
#include "base/report.h"
#include "base/store.h"

struct bitmap_list;
struct decoded_cache;
struct l2_table;
struct snapshot_list;
struct table_cache;
struct writer;

/* How many layers a chain may have. */
#define IMAGE_MAX_DEPTH 200

enum image_format { IMAGE_QCOW2, IMAGE_RAW };

/* One layer: a qcow2 image, or a raw file at the end of a chain.  All of it
 * is set by image_open and constant from then on, but for l2 and, while the
 * image is written to, l1, which change under the table cache's lock.
 */
struct layer {
  enum image_format format;
  struct store *file;           /* the image file itself */
  struct store *data;           /* where clusters lie: file or data file */
  _Atomic uint64_t file_size;   /* of the image file, bytes; grows with
                                   what is allocated past its end */
  uint64_t size;                /* what the guest sees, bytes */
  struct layer *backing;        /* NULL: none */

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
  const struct bitmap *shown;   /* what extents show, not the mapping */
  bool damaged;                 /* a check has found errors */
  struct bitmap_list *bitmaps;  /* NULL: none */
  struct table_cache *tables;   /* shared by the layers of a chain */
  struct decoded_cache *decoded; /* likewise */
  struct writer *writer;        /* NULL: this layer is only read */
  struct report_limit limit;
};

static inline uint64_t
image_file_size (const struct layer *layer)
{
  return atomic_load_explicit (&layer->file_size, memory_order_relaxed);
}

/* An entry of the L1 table, and where the L2 table is that it refers to (0:
 * nowhere).
 */
static inline uint64_t
image_l1_entry (const struct layer *layer, uint32_t l1_index)
{
  const be64 e = {
    __atomic_load_n (&layer->l1[l1_index].raw, __ATOMIC_RELAXED)
  };

  return be64_get (e);
}

static inline uint64_t
image_l2_offset (const struct layer *layer, uint32_t l1_index)
{
  return image_l1_entry (layer, l1_index) & QCOW2_L1_OFFSET;
}

static inline uint64_t
image_cluster_size (const struct layer *layer)
{
  return UINT64_C (1) << layer->cluster_bits;
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

/* What an image that is written to asks of its surroundings, all its life. */
struct image_write_env {
  /* Says why this image must not be written to; NULL: it may. */
  const char *(*refuse) (void *opaque, const struct layer *layer);

  /* Called before the first change of a session: makes sure that what is
   * written to the image file from now on reaches it as it is, by writing to
   * length bytes from offset, which nothing refers to; with grow, they lie
   * past the end of the file.  Length 0: there is no such space.  Sets *can_grow.  Returns 0 or -errno
   * (reported).
   */
  int (*prove) (void *opaque, uint64_t offset, uint64_t length, bool grow,
                bool *can_grow);
  void *opaque;
};

struct image_options {
  const struct image_env *env;
  const struct image_write_env *write_env; /* NULL: open for reading only */
  const char *snapshot;         /* ID or name; NULL: the active disk */
  const char *bitmap;           /* its name; show it as extents; or NULL */
  bool check;                   /* check for consistency */
  size_t l2_cache_size;         /* bytes, for all layers together */
  size_t decoded_cache_size;    /* likewise */
  bool want_data_file;          /* fail if the image does not use one */
  bool warn;                    /* report dirty and corrupt images */
};

/* Opens the image in store and all that it refers to.  store belongs to the
 * engine from here on, even if this fails.
 *
 * Returns 0 or -errno, having reported what is wrong.
 */
int image_open (struct store *store, const struct image_options *options,
                struct layer **layer);
void image_close (struct layer *layer);

/* One line on what this image is, for people.  The caller frees it. */
char *image_describe (const struct layer *layer);

/* Reads guest data.  offset + count must lie within image->size.  May be
 * called by many threads at once; takes no lock across I/O.  Returns 0 or
 * -errno.
 */
int image_read (struct layer *layer, void *buf, size_t count,
                uint64_t offset);

/* Receives extents in ascending order without gaps.  Returning non-zero
 * stops the walk, which then returns that value.
 */
typedef int (*extent_fn) (void *opaque, uint64_t offset, uint64_t length,
                          unsigned type);

/* Reports the extents of a guest range, merged over the chain.  What cannot
 * be read is reported as data, so that whoever looks gets the error.
 * Neighbours of equal type are not merged.  Returns 0, -errno or what fn
 * returned.
 */
int image_extents (struct layer *layer, uint64_t count, uint64_t offset,
                   extent_fn fn, void *opaque);

/* Is the image open for writing?  Not if it was not asked for, and not
 * (reported) if it is in a state that we must not write to.
 */
bool image_is_writable (const struct layer *layer);

/* Has writing ended because of an error, so that what was written since the
 * last flush may be lost?
 */
bool image_has_failed (const struct layer *layer);

/* Has nothing been written since settling last began? */
bool image_is_unchanged (const struct layer *layer);

/* Writes guest data.  What has been written is durable after image_flush.
 * Requests that overlap may be done in any order; those that do not overlap
 * never disturb each other.  Return 0 or -errno.
 */
int image_write (struct layer *layer, const void *buf, size_t count,
                 uint64_t offset);

/* Makes a guest range read as zeros.  IMAGE_ZERO_UNMAP: the space may be
 * given back.  IMAGE_ZERO_FAST: fails with -ENOTSUP, with nothing changed,
 * where zeros would have to be written.
 */
#define IMAGE_ZERO_UNMAP 1
#define IMAGE_ZERO_FAST 2
int image_zero (struct layer *layer, uint64_t count, uint64_t offset,
                unsigned flags);

/* Gives the space of a guest range back.  What could be given back reads as
 * zeros afterwards, the rest as before.
 */
int image_trim (struct layer *layer, uint64_t count, uint64_t offset);

/* Makes all that was complete before the call durable. */
int image_flush (struct layer *layer);

/* Brings the image into the state that it should have while nobody uses it:
 * all durable, nothing leaked, no unused tail.  With idle, only if nothing
 * has happened since the last call with it.  Does nothing if the image was
 * not written to.  Returns 0 or -errno: -EIO if writing has ended because of
 * an error; -ENOSPC or -EDQUOT, not reported, if it may be tried again once
 * there is space; -EBUSY, not reported, if clients came in between.  All else
 * is reported.
 */
int image_settle (struct layer *layer, bool idle);

/* Prefetches a guest range into the caches below.  Never fails for want of
 * memory or because something is unreadable: reading will tell.
 */
void image_cache (struct layer *layer, uint64_t count, uint64_t offset);

#endif /* QCOW2_IMAGE_H */
