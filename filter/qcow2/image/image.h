/* qcow2ext: an open image, as the filter sees it.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_IMAGE_H
#define QCOW2_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/report.h"
#include "base/store.h"
#include "disk/format.h"

struct snapshot_list;

/* A chain of layers: the image that is served, and what lies below it. */
struct image;

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
  /* Says why the image must not be written to; NULL: it may. */
  const char *(*refuse) (void *opaque, bool has_data_file);

  /* Called before the first change of a session: makes sure that what is
   * written to the image file from now on reaches it as it is, by writing to
   * length bytes from offset, which nothing refers to; with grow, they lie
   * past the end of the file.  Length 0: there is no such space.  Sets
   * *can_grow.  Returns 0 or -errno (reported).
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
                struct image **image);
void image_close (struct image *image);

/* One line on what this image is, for people.  The caller frees it. */
char *image_describe (const struct image *image);

/* What the guest sees, in bytes. */
uint64_t image_size (const struct image *image);

/* The smallest part of the disk that has a state of its own, in bytes. */
uint64_t image_subcluster_size (const struct image *image);

/* The snapshots of the image that is served; NULL: none were read. */
const struct snapshot_list *image_snapshots (const struct image *image);

/* The store of the external data file, which belongs to the image; NULL: the
 * image has none.
 */
struct store *image_data_file (const struct image *image);

/* Reads guest data.  offset + count must lie within image_size ().  May be
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

/* Is the image open for writing?  Not if it was not asked for, and not
 * (reported) if it is in a state that we must not write to.
 */
bool image_is_writable (const struct image *image);

/* Has writing ended because of an error, so that what was written since the
 * last flush may be lost?
 */
bool image_has_failed (const struct image *image);

/* Has nothing been written since settling last began? */
bool image_is_unchanged (const struct image *image);

/* Writes guest data.  What has been written is durable after image_flush.
 * Requests that overlap may be done in any order; those that do not overlap
 * never disturb each other.  Return 0 or -errno.
 */
int image_write (struct image *image, const void *buf, size_t count,
                 uint64_t offset);

/* Makes a guest range read as zeros.  IMAGE_ZERO_UNMAP: the space may be
 * given back.  IMAGE_ZERO_FAST: fails with -ENOTSUP, with nothing changed,
 * where zeros would have to be written.
 */
#define IMAGE_ZERO_UNMAP STORE_ZERO_PUNCH
#define IMAGE_ZERO_FAST STORE_ZERO_FAST
int image_zero (struct image *image, uint64_t count, uint64_t offset,
                unsigned flags);

/* Gives the space of a guest range back.  What could be given back reads as
 * zeros afterwards, the rest as before.
 */
int image_trim (struct image *image, uint64_t count, uint64_t offset);

/* Makes all that was complete before the call durable. */
int image_flush (struct image *image);

/* Brings the image into the state that it should have while nobody uses it:
 * all durable, nothing leaked, no unused tail.  With idle, only if nothing
 * has happened since the last call with it.  Does nothing if the image was
 * not written to.  Returns 0 or -errno: -EIO if writing has ended because of
 * an error; -ENOSPC or -EDQUOT, not reported, if it may be tried again once
 * there is space; -EBUSY, not reported, if clients came in between.  All else
 * is reported.
 */
int image_settle (struct image *image, bool idle);

/* Prefetches a guest range into the caches below.  Never fails for want of
 * memory or because something is unreadable: reading will tell.
 */
void image_cache (struct image *image, uint64_t count, uint64_t offset);

#endif /* QCOW2_IMAGE_H */
