/* qcow2ext: an open image: the chain of layers and the public API.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Opening goes from the top of the chain down; whatever fails takes down all
 * that was opened.  The cache of tables belongs to the image; its layers
 * share it.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/printable.h"
#include "data/decoded-cache.h"
#include "data/extents.h"
#include "data/read.h"
#include "data/write.h"
#include "disk/bitmap-directory.h"
#include "image/bitmap-export.h"
#include "image/chain.h"
#include "image/check.h"
#include "image/image.h"
#include "image/layer-open.h"
#include "image/settle.h"
#include "image/writer.h"
#include "map/l2-cache.h"

/* --- opening and closing --- */

/* Opens what is below a layer, if there is something. */
static int
open_next_layer (struct image *image, struct layer *above,
                 const struct image_options *options, unsigned depth)
{
  const struct image_env *env = options->env;
  enum image_format format;
  struct store *store;
  int r;

  r = env->open_backing (env->opaque, depth, above->file,
                         above->header.backing_file,
                         above->header.backing_format, &store, &format);
  if (r < 0 || store == NULL)
    return r;
  if (above->geo.data_file_raw) {
    report_error ("%s: an image with a raw external data file cannot have a "
                  "backing file", above->file->name);
    store_close (store);
    return -EINVAL;
  }
  if (depth + 1 >= IMAGE_MAX_DEPTH) {
    report_error ("%s: the chain of backing files is longer than %d",
                  store->name, IMAGE_MAX_DEPTH);
    store_close (store);
    return -ELOOP;
  }
  r = layer_open (store, format, options, depth + 1, &above->backing);
  if (above->backing)
    above->backing->tables = image->tables;
  return r;
}

/* Opens all layers and makes their caches. */
static int
open_chain (struct image *image, struct store *store,
            const struct image_options *options)
{
  struct layer *layer;
  unsigned depth = 0;
  int r;

  image->decoded = decoded_cache_ref (options->decoded);
  if ((r = layer_open (store, IMAGE_QCOW2, options, 0, &image->top)) < 0)
    return r;
  image->tables = l2_cache_new (options->l2_cache_size);
  if (image->tables == NULL)
    return -ENOMEM;
  image->top->tables = image->tables;

  for (layer = image->top; r == 0 && layer && layer->format == IMAGE_QCOW2;
       layer = layer->backing)
    r = open_next_layer (image, layer, options, depth++);
  return r;
}

/* Whoever gives a pass phrase counts on encryption. */
static int
check_encryption (const struct image *image)
{
  for (const struct layer *l = image->top; l; l = l->backing)
    if (l->header.encrypted)
      return 0;
  report_error ("%s: a pass phrase was given, but the image is not encrypted",
                image->top->file->name);
  return -EINVAL;
}

/* Checks an image because the user wants it; errors are no failure. */
static int
check_at_open (struct image *image)
{
  struct layer *layer = image->top;
  struct check_result result;
  int r = layer_check (layer, true, &result);

  free (result.counts);
  if (r < 0) {
    report_error ("%s: the image could not be checked: %s",
                  layer->file->name, strerror (-r));
    return r;
  }
  if (result.errors || result.leaks)
    report_warning ("%s: the check found %" PRIu64 " errors and %" PRIu64
                    " leaked clusters", layer->file->name, result.errors,
                    result.leaks);
  image->damaged = result.errors > 0;
  return 0;
}

/* Says why an image must not be written to; NULL: it may. */
static const char *
why_read_only (const struct image *image, const struct image_write_env *env)
{
  const struct layer *layer = image->top;
  const struct header *h = &layer->header;

  if (h->incompatible & QCOW2_INCOMPAT_CORRUPT)
    return "it is marked corrupt; repair it with qemu-img check -r all";
  if (image->damaged)
    return "the check found errors; repair it with qemu-img check -r all";
  if (image->exported)
    return "a bitmap is shown";
  if (layer->bitmaps && layer->bitmaps->damaged)
    return "its dirty bitmaps could not be kept true";
  if (layer->geo.has_data_file && h->nb_snapshots)
    return "it has an external data file and snapshots, which exclude each "
      "other";
  if (layer->file->readonly)
    return "it cannot be opened for writing";
  if (layer->clusters->readonly)
    return "its external data file cannot be opened for writing";
  return env->refuse (env->opaque, layer->geo.has_data_file);
}

/* A backup program trusts a bitmap to record, unless it is told. */
static void
warn_about_bitmaps (const struct layer *layer)
{
  const struct bitmap_list *list = layer->bitmaps;

  for (size_t i = 0; list && i < list->count; i++)
    if ((list->bitmap[i].flags & QCOW2_BITMAP_AUTO)
        && !list->bitmap[i].usable)
      report_warning ("%s: bitmap \"%s\" is marked as in use or is damaged (a "
                      "program that recorded in it was killed?) and does not "
                      "record what is written from now on; make a new one in "
                      "its place, with a full backup",
                      layer->file->name, list->bitmap[i].name);
}

/* Can what is written be compressed, if that is wanted? */
static int
check_write_options (const struct layer *layer,
                     const struct write_options *options)
{
  if (!options->compress
      || (!layer->geo.has_data_file && !layer->header.encrypted))
    return 0;
  report_error ("%s: what is written cannot be compressed: %s",
                layer->file->name,
                layer->header.encrypted
                ? "the image is encrypted, which compressed clusters are not"
                : "the image has an external data file, which holds clusters "
                  "only as they are");
  return -ENOTSUP;
}

static int
open_for_writing (struct image *image, const struct image_options *options)
{
  const char *why = why_read_only (image, options->write_env);

  if (why) {
    report_warning ("%s: the image is served read-only: %s",
                    image->top->file->name, why);
    return 0;
  }
  if (options->warn_bitmaps)
    warn_about_bitmaps (image->top);
  return writer_open (image->top, options->write_env, &options->write);
}

int
image_open (struct store *store, const struct image_options *options,
            struct image **result)
{
  struct image *image = calloc (1, sizeof *image);
  int r = -ENOMEM;

  if (image == NULL)
    store_close (store);
  else
    r = open_chain (image, store, options);
  if (r == 0 && options->want_encryption)
    r = check_encryption (image);
  for (size_t i = 0; r == 0 && i < options->nr_bitmaps; i++)
    r = options->bitmap_chain
      ? bitmap_export_chain (image, options->bitmaps[i])
      : bitmap_export (image, options->bitmaps[i], options->any_bitmap);
  if (r == 0 && options->check)
    r = check_at_open (image);
  if (r == 0)
    r = check_write_options (image->top, &options->write);
  if (r == 0 && options->write_env)
    r = open_for_writing (image, options);

  if (r < 0) {
    if (r == -ENOMEM)
      report_error ("the image cannot be opened: out of memory");
    image_close (image);
    return r;
  }
  *result = image;
  return 0;
}

void
image_close (struct image *image)
{
  struct layer *next;

  if (image == NULL)
    return;
  for (struct layer *layer = image->top; layer; layer = layer->backing)
    writer_close (layer);
  for (struct layer *layer = image->top; layer; layer = next) {
    next = layer->backing;
    if (layer->l2 && layer->tables)
      l2_cache_drop (layer);
    layer_close (layer);
  }
  l2_cache_free (image->tables);
  decoded_cache_unref (image->decoded);
  bitmap_export_free (image);
  free (image);
}

/* --- what it is --- */

static const char *
base_name (const char *path)
{
  const char *slash = strrchr (path, '/');

  return slash && slash[1] ? slash + 1 : path;
}

char *
image_describe (const struct image *image)
{
  const struct layer *layer = image->top;
  const struct header *h = &layer->header;
  const unsigned bits = layer->geo.cluster_bits;
  char *description = NULL;
  size_t len;
  FILE *f = open_memstream (&description, &len);

  if (f == NULL)
    return NULL;
  fprintf (f, "qcow2 v%u, ", h->version);
  if (bits >= 20)
    fprintf (f, "%u MiB clusters", 1U << (bits - 20));
  else if (bits >= 10)
    fprintf (f, "%u KiB clusters", 1U << (bits - 10));
  else
    fprintf (f, "%u byte clusters", 1U << bits);
  if (layer->geo.extended_l2)
    fputs (", extended L2", f);
  if (h->compression_type == QCOW2_COMPRESSION_ZSTD)
    fputs (", zstd", f);
  if (h->encrypted)
    fputs (", encrypted", f);
  if (layer->geo.has_data_file)
    fprintf (f, ", %sexternal data file %s",
             layer->geo.data_file_raw ? "raw " : "",
             base_name (layer->clusters->name));
  if (layer->backing)
    fprintf (f, ", backing file %s", base_name (layer->backing->file->name));
  if (fclose (f) != 0) {
    free (description);
    return NULL;
  }
  printable_mask (description);
  return description;
}

uint64_t
image_size (const struct image *image)
{
  return image->top->size;
}

uint64_t
image_subcluster_size (const struct image *image)
{
  return layer_subcluster_size (image->top);
}

uint64_t
image_preferred_size (const struct image *image)
{
  const struct layer *top = image->top;

  return top->writer && top->writer->encoder ? layer_cluster_size (top)
                                             : layer_subcluster_size (top);
}

const struct snapshot_list *
image_snapshots (const struct image *image)
{
  return image->top->snapshots;
}

size_t
image_bitmaps (const struct image *image)
{
  const struct bitmap_list *list = image->top->bitmaps;

  return list && !list->damaged ? list->count : 0;
}

struct image_bitmap
image_bitmap (const struct image *image, size_t index)
{
  const struct bitmap *b = &image->top->bitmaps->bitmap[index];

  return (struct image_bitmap) {
    .name = b->name,
    .granularity = UINT64_C (1) << b->granularity_bits,
    .enabled = b->flags & QCOW2_BITMAP_AUTO,
    .usable = b->usable,
  };
}

int
image_bitmap_changed (const struct image *image, size_t index,
                      uint64_t *bytes)
{
  return bitmap_changed (image, index, bytes);
}

struct store *
image_data_file (const struct image *image)
{
  return image->top->data_file;
}

/* --- requests --- */

int
image_read (struct image *image, void *buf, size_t count, uint64_t offset)
{
  return layer_read (image->top, buf, count, offset);
}

int
image_extents (struct image *image, uint64_t count, uint64_t offset,
               extent_fn fn, void *opaque)
{
  if (image->exported)
    return bitmap_extents (image, count, offset, fn, opaque);
  return layer_extents (image->top, count, offset, fn, opaque);
}

void
image_cache (struct image *image, uint64_t count, uint64_t offset)
{
  layer_cache (image->top, count, offset);
}

bool
image_is_writable (const struct image *image)
{
  return image->top->writer != NULL;
}

bool
image_has_failed (const struct image *image)
{
  const struct writer *w = image->top->writer;

  return w && !health_ok (&w->health) && !w->refused;
}

bool
image_is_unchanged (const struct image *image)
{
  const struct writer *w = image->top->writer;

  return w == NULL || !w->started || !w->active;
}

bool
image_is_pristine (const struct image *image)
{
  const struct writer *w = image->top->writer;

  return w == NULL || !w->started;
}

int
image_write (struct image *image, const void *buf, size_t count,
             uint64_t offset)
{
  return layer_write (image->top, buf, count, offset);
}

int
image_zero (struct image *image, uint64_t count, uint64_t offset,
            unsigned flags)
{
  return layer_zero (image->top, count, offset, flags);
}

int
image_trim (struct image *image, uint64_t count, uint64_t offset)
{
  return layer_trim (image->top, count, offset);
}

int
image_flush (struct image *image)
{
  return layer_flush (image->top);
}

int
image_settle (struct image *image, bool idle)
{
  return layer_settle (image->top, idle);
}
