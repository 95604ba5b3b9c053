/* qcow2ext: makes, starts and ends the writing side.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "data/bitmap-tracker.h"
#include "data/decoded-cache.h"
#include "data/encoder.h"
#include "data/writer.h"
#include "disk/metadata-walk.h"
#include "image/repair.h"
#include "image/writer.h"
#include "space/allocator.h"

static int writer_start (struct writer *w);

/* What is cached of a host range that is about to have another content. */
static void
forget_decoded (void *opaque, uint64_t offset, uint64_t length)
{
  const struct layer *layer = opaque;

  decoded_cache_drop_range (layer->decoded, layer, offset, length);
}

/* The order of the sources is what makes two locks enough: see
 * mapping-update.h.
 */
static void
init_commit (struct writer *w)
{
  struct layer *layer = w->layer;
  const struct commit_source tables = mapping_update_source (&w->update);
  const struct commit_source counts = refcounts_source (&w->counts);

  commit_init (&w->commit, &w->health, layer->file,
               w->place.fixed ? layer->clusters : NULL, &layer->limit);
  commit_register (&w->commit, &tables);
  commit_register (&w->commit, &counts);
}

int
writer_open (struct layer *layer, const struct image_write_env *env,
             const struct write_options *options)
{
  struct writer *w =
    aligned_alloc (64, (sizeof *w + 63) & ~(size_t) 63);
  int r;

  if (w == NULL)
    return -ENOMEM;
  memset (w, 0, sizeof *w);
  w->layer = layer;
  w->env = env;
  w->options = *options;
  w->start = writer_start;
  w->inherited = true;
  w->health.file = layer->file;
  w->health.header = &layer->header;
  pthread_mutex_init (&w->start_lock, NULL);
  epochs_init (&w->changes);
  in_place_init (&w->in_place);
  metadata_map_init (&w->metadata, layer->geo.cluster_bits);
  refcounts_init (&w->counts, &w->health, &w->metadata, &layer->file_size);
  deferred_free_init (&w->frees, &w->counts, &w->changes,
                      &w->in_place.epochs, forget_decoded, layer);
  r = mapping_update_init (&w->update, layer, &w->health, &w->counts,
                           &w->frees);
  range_locks_init (&w->ranges);
  place_init (&w->place, layer, &w->update);
  init_commit (w);
  layer->writer = w;            /* closed with the layer, even if this fails */
  if (r == 0 && options->compress) {
    w->encoder = encoder_new (layer->header.compression_type,
                              layer_cluster_size (layer));
    r = w->encoder ? 0 : -ENOMEM;
  }
  return r;
}

void
writer_close (struct layer *layer)
{
  struct writer *w = layer->writer;

  if (w == NULL)
    return;
  encoder_free (w->encoder);
  tracker_stop (w->tracker);
  commit_destroy (&w->commit);
  place_destroy (&w->place);
  range_locks_destroy (&w->ranges);
  mapping_update_destroy (&w->update);
  deferred_free_destroy (&w->frees);
  refcounts_destroy (&w->counts);
  metadata_map_destroy (&w->metadata);
  in_place_destroy (&w->in_place);
  epochs_destroy (&w->changes);
  pthread_mutex_destroy (&w->start_lock);
  free (w);
  layer->writer = NULL;
}

static int
build_metadata_map (struct writer *w)
{
  const struct layer *layer = w->layer;
  const struct metadata_source source = {
    .file = layer->file, .file_size = layer_file_size (layer),
    .header = &layer->header, .snapshots = layer->snapshots,
    .bitmaps = layer->bitmaps,
  };

  return metadata_map_build (&w->metadata, &source, &w->health);
}

/* Makes sure that the file can be written to, and what is free in it. */
static int
open_space (struct writer *w)
{
  struct layer *layer = w->layer;
  const struct image_write_env *env = w->env;
  const uint64_t size = layer_cluster_size (layer);
  const bool grow = !layer->file->fixed_size;
  bool *can_grow = &w->counts.end.can_grow;
  uint64_t length, end;
  int r;

  if ((r = store_get_size (layer->file, &length)) < 0)
    return r;
  end = (length + size - 1) & -size;
  if (grow
      && (r = env->prove (env->opaque, end, size, true, can_grow)) < 0)
    return r;
  if ((r = refcounts_open (&w->counts)) < 0
      || (r = build_metadata_map (w)) < 0 || grow)
    return r;

  /* A device is as large as it is: the proof takes a free cluster of it, and
   * cannot be had if there is none (nor if its counts are not to be trusted).
   */
  r = layer->header.incompatible & QCOW2_INCOMPAT_DIRTY
    ? -ENOSPC : allocator_last_free (&w->counts, &end);
  if (r < 0 && r != -ENOSPC)
    return r;
  return env->prove (env->opaque, end, r < 0 ? 0 : size, false, can_grow);
}

static int
prepare (struct writer *w)
{
  int r;

  if ((r = open_space (w)) < 0
      || (r = repair_image (w)) < 0
      || (r = tracker_start (w, &w->tracker)) < 0)
    return r;
  return repair_data_file (w);
}

static int
writer_start (struct writer *w)
{
  LOCK_FOR_SCOPE (&w->start_lock);
  if (!w->started) {
    const int r = prepare (w);

    if (r == -ENOSPC && health_ok (&w->health)) { /* there may be space
                                                     another time */
      tracker_stop (w->tracker);
      w->tracker = NULL;
      refcounts_close (&w->counts);
      metadata_map_clear (&w->metadata);
      return r;
    }
    w->start_error = r;
    w->refused = r < 0 && health_ok (&w->health);
    if (r < 0)
      w->health.failed = true;
    w->started = true;
  }
  return w->start_error;
}

/* A server that was killed may have written what it did not flush.  Clients
 * have read that here, and rely on it after a flush.  A commit flushes only
 * files of which it knows changes.
 */
static int
flush_inherited (struct writer *w)
{
  struct layer *layer = w->layer;
  int r;

  if (!health_ok (&w->health))
    return -EIO;
  if ((r = health_flush (&w->health, layer->file, FLUSH_INHERITED)) == 0
      && w->commit.data)
    r = health_flush (&w->health, w->commit.data, FLUSH_INHERITED);
  if (r == 0)
    w->inherited = false;
  return r;
}

int
layer_flush (struct layer *layer)
{
  struct writer *w = layer->writer;
  int r;

  /* start_error may be looked at when started is set, and not before. */
  if (w == NULL || (w->started && w->start_error == -EROFS))
    return 0;
  if (w->inherited && (r = flush_inherited (w)) < 0)
    return r;
  if (!w->started)
    return 0;                   /* nothing was written */
  return commit_run (&w->commit);
}
