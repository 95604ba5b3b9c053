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
#include "image/env.h"

struct snapshot_list;

/* A chain of layers: the image that is served, and what lies below it. */
struct image;

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

/* Requests of this size, in bytes, and aligned to it, suit the image best. */
uint64_t image_preferred_size (const struct image *image);

/* The snapshots of the image that is served; NULL: none were read. */
const struct snapshot_list *image_snapshots (const struct image *image);

/* A bitmap of the image that is served. */
struct image_bitmap {
  const char *name;             /* belongs to the image */
  uint64_t granularity;         /* bytes that a bit stands for */
  bool enabled;                 /* it is to record what is written */
  bool usable;                  /* it is consistent */
};

/* How many there are, as far as their directory is sound; the one of an index
 * below that; and how many bytes one that is usable says have changed, for
 * which it is read.  This returns 0 or -errno (reported).
 */
size_t image_bitmaps (const struct image *image);
struct image_bitmap image_bitmap (const struct image *image, size_t index);
int image_bitmap_changed (const struct image *image, size_t index,
                          uint64_t *bytes);

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

/* Has nothing been written since settling last began?  Or at all? */
bool image_is_unchanged (const struct image *image);
bool image_is_pristine (const struct image *image);

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
