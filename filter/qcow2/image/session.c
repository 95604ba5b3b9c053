/* qcow2ext: the beginning and the end of writing.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   closed --writer_open--> clean --first change--> started --flush fails,
 *   image unsound--> failed
 *
 * Opening changes nothing, so that looking at an image costs nothing.  The
 * first change of a session is prepared for once (writer_start).  While
 * nobody has anything under way, layer_settle makes what is on disk complete
 * and gives back what the session did not need.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"
#include "image/check.h"
#include "base/cleanup.h"
#include "base/mutant.h"
#include "base/pause-point.h"
#include "disk/snapshot.h"
#include "image/writer.h"

int
writer_open (struct layer *layer, const struct image_write_env *env)
{
  const size_t l1_sectors =
    ((size_t) layer->l1_entries * sizeof (be64) + QCOW2_SECTOR_SIZE - 1)
    / QCOW2_SECTOR_SIZE;
  struct writer *w;

  w = aligned_alloc (64, (sizeof *w + 63) & ~(size_t) 63);
  if (w == NULL)
    return -ENOMEM;
  memset (w, 0, sizeof *w);
  w->l1_dirty = calloc (l1_sectors / 64 + 1, sizeof *w->l1_dirty);
  if (w->l1_dirty == NULL) {
    free (w);
    return -ENOMEM;
  }
  w->layer = layer;
  w->env = env;
  pthread_mutex_init (&w->lock, NULL);
  pthread_mutex_init (&w->start_lock, NULL);
  pthread_mutex_init (&w->bitmap_lock, NULL);
  pthread_cond_init (&w->commit_done, NULL);
  pthread_cond_init (&w->ranges.released, NULL);
  inflight_init (&w->inflight);
  layer->writer = w;
  return 0;
}

void
writer_close (struct layer *layer)
{
  struct writer *w = layer->writer;

  if (w == NULL)
    return;
  refcount_close (w);
  free (w->unlinked.item);
  free (w->durable.item);
  free (w->grace.item);
  free (w->l1_dirty);
  pthread_cond_destroy (&w->ranges.released);
  pthread_cond_destroy (&w->commit_done);
  pthread_mutex_destroy (&w->bitmap_lock);
  pthread_mutex_destroy (&w->start_lock);
  pthread_mutex_destroy (&w->lock);
  free (w);
  layer->writer = NULL;
}

int
writer_fail (struct writer *w, bool corrupt, const char *why)
{
  struct layer *layer = w->layer;
  struct header *h = &layer->header;
  const uint64_t bits = h->incompatible | QCOW2_INCOMPAT_CORRUPT;
  const be64 field = be64_make (bits);

  if (w->failed)
    return -EIO;
  w->failed = true;
  report_error ("%s: %s; the image refuses all further writes%s",
                layer->file->name, why,
                corrupt ? " and is marked corrupt: see qemu-img check"
                        : " until the server is started again");
  if (corrupt && h->version >= 3
      && commit_patch_header (w, offsetof (struct qcow2_header,
                                           incompatible_features),
                              &field, sizeof field) == 0)
    h->incompatible = bits;
  return -EIO;
}

/* Unknown autoclear bits vouch for things that we do not keep true; the one
 * for bitmaps, for an extension that must be there.
 */
static int
clear_autoclear (struct writer *w)
{
  struct header *h = &w->layer->header;
  const uint64_t bits = h->autoclear & QCOW2_AUTOCLEAR_KNOWN
    & ~(h->has_bitmaps ? 0 : QCOW2_AUTOCLEAR_BITMAPS);
  const be64 field = be64_make (bits);
  int r;

  if (h->version < 3 || bits == h->autoclear || MUTANT (keep_autoclear))
    return 0;
  r = commit_patch_header (w, offsetof (struct qcow2_header,
                                        autoclear_features),
                           &field, sizeof field);
  if (r == 0)
    h->autoclear = bits;
  return r;
}

/* What a raw data file shows is the whole disk. */
static int
extend_raw_file (struct layer *layer)
{
  uint64_t size;
  int r;

  if (!layer->geo.data_file_raw)
    return 0;
  r = store_get_size (layer->clusters, &size);
  if (r == 0 && size < layer->size && !MUTANT (raw_short))
    r = store_resize (layer->clusters, layer->size);
  if (r < 0)
    report_error ("%s: the external data file %s cannot be extended to the "
                  "size of the disk: %s", layer->file->name,
                  layer->clusters->name, strerror (-r));
  return r;
}

/* An image with the dirty bit was written to with lazy refcounts and not
 * closed: its counts are rebuilt from its tables, and only then is it clean.
 */
static int
repair_dirty (struct writer *w)
{
  struct layer *layer = w->layer;
  struct header *h = &layer->header;
  const uint64_t bits = h->incompatible & ~QCOW2_INCOMPAT_DIRTY;
  const be64 field = be64_make (bits);
  struct check_result result;
  int r;

  if (!(h->incompatible & QCOW2_INCOMPAT_DIRTY))
    return 0;
  if (MUTANT (clean_before_counts))
    commit_patch_header (w, offsetof (struct qcow2_header,
                                      incompatible_features),
                         &field, sizeof field);
  r = layer_check (layer, false, &result);
  if (r == 0 && result.errors != result.wrong_counts + result.wrong_flags)
    r = -ENOTSUP;
  if (r == 0)
    r = refcount_repair (w, result.counts, result.clusters);
  free (result.counts);
  if (r == 0)
    r = commit (w);
  /* An attempt before this one may have written counts, and then failed: the
   * commit found nothing to write, and so had nothing to flush.
   */
  if (r == 0 && !MUTANT (repair_unflushed)
      && (r = store_flush (layer->file)) < 0)
    writer_fail (w, false, "flushing the image file failed");
  if (r == 0) {
    r = layer_check (layer, false, &result);
    free (result.counts);
    if (r == 0 && result.errors)
      r = -ENOTSUP;
  }
  if (r < 0) {
    report_error ("%s: the image was not closed properly and cannot be "
                  "repaired here; use qemu-img check -r all",
                  layer->file->name);
    return r == -ENOTSUP ? -EROFS : r;
  }
  r = commit_patch_header (w, offsetof (struct qcow2_header,
                                        incompatible_features),
                           &field, sizeof field);
  if (r == 0) {
    h->incompatible = bits;
    report_warning ("%s: the image was not closed properly; its refcounts "
                    "have been repaired", layer->file->name);
  }
  return r;
}

static int
start (struct writer *w)
{
  struct layer *layer = w->layer;
  const uint64_t size = layer_cluster_size (layer);
  const bool grow = !layer->file->fixed_size;
  uint64_t length, end;
  int r;

  if ((r = store_get_size (layer->file, &length)) < 0)
    return r;
  end = (length + size - 1) & -size;
  if (grow
      && (r = w->env->prove (w->env->opaque, end, size, true, &w->can_grow))
         < 0)
    return r;
  if ((r = refcount_open (w)) < 0)
    return r;
  /* A device is as large as it is: the proof takes a free cluster of it, and
   * cannot be had if there is none (nor if its counts are not to be trusted).
   */
  if (!grow) {
    const bool dirty = layer->header.incompatible & QCOW2_INCOMPAT_DIRTY;

    r = dirty ? -ENOSPC : refcount_last_free (w, &end);
    if (r < 0 && r != -ENOSPC)
      return r;
    r = w->env->prove (w->env->opaque, end, r < 0 ? 0 : size, false,
                       &w->can_grow);
    if (r < 0)
      return r;
  }
  if ((r = repair_dirty (w)) < 0
      || (r = clear_autoclear (w)) < 0
      || (r = bitmap_start (w)) < 0)
    return r;
  return extend_raw_file (layer);
}

int
writer_start (struct writer *w)
{
  LOCK_FOR_SCOPE (&w->start_lock);
  if (!w->started || MUTANT (start_twice)) {
    const int r = start (w);

    if (r == -ENOSPC && !w->failed) { /* there may be space another time */
      bitmap_stop (w);
      refcount_close (w);
      return r;
    }
    w->start_error = r;
    w->refused = r < 0 && !w->failed;
    if (r < 0)
      w->failed = true;
    w->started = true;
  }
  return w->start_error;
}

int
layer_flush (struct layer *layer)
{
  struct writer *w = layer->writer;

  /* Nothing was written: nothing of ours can be lost. */
  if (w == NULL || !w->started || w->start_error == -EROFS
      || (MUTANT (flush_tables_only) && !commit_is_dirty (w)))
    return 0;
  return commit (w);
}

/* Gives back the end of the file that this session grew and does not use:
 * down to the size it had at the start, and no further.  What was written last
 * need not fill its cluster; the file is made to, for a layer below that serves
 * whole blocks only would cut it off the next time.
 */
static int
trim_tail (struct writer *w)
{
  struct layer *layer = w->layer;
  const unsigned bits = layer->geo.cluster_bits;
  uint64_t end = w->end, size, wanted, count;
  int r;

  if (!w->can_grow || w->ranges.held || MUTANT (no_trim_tail))
    return 0;
  while (end > (MUTANT (trim_below_start) ? 1 : w->start_end)) {
    if ((r = refcount_get (w, end - 1, &count)) < 0)
      return r;
    if (count)
      break;
    end--;
  }
  wanted = end << bits;
  /* The last cluster was perhaps cut short by the end of the file. */
  if (end == w->start_end && w->start_size < wanted) {
    if ((r = refcount_get (w, end - 1, &count)) < 0)
      return r;
    if (count == 0)
      wanted = w->start_size;
  }

  if ((r = store_get_size (layer->file, &size)) < 0)
    return r;
  if (size != wanted && (r = store_resize (layer->file, wanted)) < 0)
    return r;
  if (end < w->end) {
    w->end = end;
    w->virgin = end;
    atomic_store_explicit (&layer->file_size, end << bits,
                           memory_order_relaxed);
  }
  return 0;
}

int
layer_settle (struct layer *layer, bool idle)
{
  struct writer *w = layer->writer;
  bool was_active, was_settled;
  int r = 0;

  if (w == NULL || !w->started || w->start_error)
    return 0;
  if (w->failed)
    return -EIO;                /* reported when it failed */
  was_active = atomic_exchange (&w->active, false);
  if (idle && was_active)
    return 0;                   /* next time */

  PAUSE_POINT ("settle: nothing was active");
  was_settled = atomic_exchange (&w->settled, true);
  for (unsigned i = 0; i < (MUTANT (settle_once) ? 1 : 4) && r == 0; i++) {
    bool dirty;

    pthread_mutex_lock (&w->lock);
    if (i > 0)
      commit_reap (w);
    dirty = commit_is_dirty (w) || w->freed_bytes;
    pthread_mutex_unlock (&w->lock);
    /* Guest data, too, has to be durable. */
    if (!dirty && (i > 0 || (idle && was_settled)
                   || MUTANT (settle_tables_only)))
      break;
    r = commit (w);
  }
  if (r == 0) {
    r = bitmap_close (w);
    if (r == -EBUSY && idle) {  /* somebody came in between: next time */
      w->settled = false;
      return 0;
    }
  }
  {
    LOCK_FOR_SCOPE (&w->lock);
    data_holes_forget (&w->holes);
    if (r == 0 && !w->failed)
      r = trim_tail (w);
  }
  if (r < 0 || w->active)       /* somebody came in between */
    w->settled = false;
  if (r < 0 && r != -ENOSPC && r != -EDQUOT && r != -EBUSY)
    report_error ("%s: what was written since the last flush may not be on "
                  "disk: %s; the image is sound", layer->file->name,
                  strerror (-r));
  return r;
}
