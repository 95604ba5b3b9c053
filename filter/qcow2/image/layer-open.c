/* qcow2ext: opening one layer.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/decoded-cache.h"
#include "disk/bitmap-directory.h"
#include "disk/snapshot.h"
#include "disk/table.h"
#include "image/layer-open.h"

/* Reads an L1 table that has been found to be within the limits. */
static int
read_l1 (struct layer *layer, uint64_t offset, uint32_t entries)
{
  const uint64_t bytes = entries_bytes (entries);
  const uint64_t size = layer_file_size (layer);
  int r;

  if (bytes > 0 && (offset > size || bytes > size - offset)) {
    report_error ("%s: the L1 table lies past the end of the file (is the "
                  "image cut short?)", layer->file->name);
    return -EINVAL;
  }
  layer->l2 = calloc (entries + 1, sizeof *layer->l2);
  if (layer->l2 == NULL)
    return -ENOMEM;
  r = table_read (layer->file, offset, entries, &layer->l1);
  if (r < 0 && r != -ENOMEM)
    report_error ("%s: the L1 table cannot be read: %s", layer->file->name,
                  strerror (-r));
  if (r == 0)
    layer->l1_entries = entries;
  return r;
}

static void
report_missing_snapshot (const struct layer *layer, const char *wanted)
{
  const struct snapshot_list *list = layer->snapshots;
  char names[1024] = "";
  size_t len = 0;

  for (size_t i = 0; i < list->count && len < sizeof names; i++)
    len += snprintf (names + len, sizeof names - len, "%s%s (%s)",
                     i ? ", " : "", list->snapshot[i].id,
                     list->snapshot[i].name);
  report_error ("%s: there is no snapshot with ID or name \"%s\"; %s%s",
                layer->file->name, wanted,
                list->count ? "the snapshots are, as ID (name): "
                            : "the image has no snapshots", names);
}

/* Sets the size and the L1 table to those of the snapshot. */
static int
open_snapshot (struct layer *layer, const char *wanted)
{
  const struct snapshot *s = snapshot_find (layer->snapshots, wanted);
  const unsigned coverage = geometry_table_bits (&layer->geo);
  const struct store *store = layer->file;
  int r;

  if (s == NULL) {
    report_missing_snapshot (layer, wanted);
    return -ENOENT;
  }
  if (header_has_data_file (&layer->header)) {
    report_error ("%s: an image with an external data file cannot have "
                  "snapshots", store->name);
    return -ENOTSUP;
  }
  r = table_check_place (store, layer->geo.cluster_bits, "snapshot's L1 table",
                         s->l1_offset, s->l1_entries, sizeof (be64),
                         QCOW2_MAX_L1_BYTES);
  if (r < 0)
    return r;
  if (s->disk_size > INT64_MAX
      || div_round_up (s->disk_size, coverage) > s->l1_entries
      || (s->l1_entries && s->l1_offset == 0)) {
    report_error ("%s: snapshot \"%s\": the L1 table is too small or "
                  "misplaced", store->name, wanted);
    return -EINVAL;
  }
  layer->size = s->disk_size;
  return read_l1 (layer, s->l1_offset, s->l1_entries);
}

static void
warn_about_state (const struct layer *layer)
{
  if (layer->header.incompatible & QCOW2_INCOMPAT_CORRUPT)
    report_warning ("%s: the image is marked corrupt; reading may fail or "
                    "return wrong data (see qemu-img check)",
                    layer->file->name);
  else if (layer->header.incompatible & QCOW2_INCOMPAT_DIRTY)
    report_warning ("%s: the image was not closed properly (the dirty bit is "
                    "set)", layer->file->name);
}

/* Explains to whoever debugs what has been read. */
static void
debug_header (const struct layer *layer, unsigned depth)
{
  const struct header *h = &layer->header;

  report_debug ("layer %u: %s: qcow2 v%u, virtual size %" PRIu64
                ", cluster size %u, file size %" PRIu64, depth,
                layer->file->name, h->version, h->size, 1U << h->cluster_bits,
                layer_file_size (layer));
  report_debug ("layer %u: features: incompatible 0x%" PRIx64
                " compatible 0x%" PRIx64 " autoclear 0x%" PRIx64
                ", compression type %u, refcount bits %u", depth,
                h->incompatible, h->compatible, h->autoclear,
                h->compression_type, 1U << h->refcount_order);
  report_debug ("layer %u: L1 table of %" PRIu32 " entries at 0x%" PRIx64
                ", refcount table of %" PRIu32 " clusters at 0x%" PRIx64
                ", %" PRIu32 " snapshots, %" PRIu32 " bitmaps", depth,
                h->l1_entries, h->l1_offset, h->reftable_clusters,
                h->reftable_offset, h->nb_snapshots, h->nb_bitmaps);
  report_debug ("layer %u: external data file: %s, backing file: %s (%s)",
                depth, h->data_file ? h->data_file : "-",
                h->backing_file ? h->backing_file : "-",
                h->backing_format ? h->backing_format : "no format");
}

static int
open_data (struct layer *layer, const struct image_env *env, unsigned depth)
{
  uint64_t size;
  int r;

  r = env->open_data (env->opaque, depth, layer->file,
                      layer->header.data_file, &layer->data_file);
  if (r < 0)
    return r;
  layer->clusters = layer->data_file;
  if (!layer->data_file->fixed_size)
    return 0;
  r = store_get_size (layer->data_file, &size);
  if (r == 0 && size < layer->size) {
    report_error ("%s: the external data file %s has %" PRIu64 " bytes and "
                  "cannot grow, too small for a disk of %" PRIu64,
                  layer->file->name, layer->clusters->name, size, layer->size);
    r = -EINVAL;
  }
  return r;
}

/* Puts the encryption in front of the guest's clusters. */
static int
open_encrypted (struct layer *layer, const struct image_env *env)
{
  const struct header *h = &layer->header;

  return env->open_encrypted (env->opaque, layer->file, h->crypto_offset,
                              h->crypto_length, layer->clusters,
                              &layer->clusters);
}

static int
open_qcow2 (struct layer *layer, const struct image_options *options,
            unsigned depth)
{
  const struct image_env *env = options->env;
  struct header *h = &layer->header;
  int r;

  if ((r = header_read (layer->file, h)) < 0)
    return r;
  layer->geo = geometry_of_header (h);
  layer->size = h->size;
  debug_header (layer, depth);
  if (options->warn)
    warn_about_state (layer);

  if (depth == 0 && options->want_data_file && !layer->geo.has_data_file) {
    report_error ("%s: an external data file was given, but the image does "
                  "not use one", layer->file->name);
    return -EINVAL;
  }
  /* Only those of the image that is served are of use to anybody. */
  if (depth == 0
      && (r = snapshot_list_read (layer->file, h, &layer->snapshots)) < 0)
    return r;
  if ((depth == 0 || options->bitmap_chain)
      && (r = bitmap_list_read (layer->file, layer_file_size (layer), h,
                                &layer->bitmaps)) < 0)
    return r;
  if (depth == 0 && options->snapshot)
    r = open_snapshot (layer, options->snapshot);
  else
    r = read_l1 (layer, h->l1_offset, h->l1_entries);
  if (r < 0)
    return r;

  if (layer->geo.has_data_file
      && (r = open_data (layer, env, depth)) < 0)
    return r;
  return h->encrypted ? open_encrypted (layer, env) : 0;
}

int
layer_open (struct store *store, enum image_format format,
            const struct image_options *options, unsigned depth,
            struct layer **result)
{
  struct layer *layer = calloc (1, sizeof *layer);
  uint64_t size;
  int r;

  *result = NULL;
  if (layer == NULL) {
    store_close (store);
    return -ENOMEM;
  }
  layer->format = format;
  layer->decoded = options->decoded;
  layer->content = decoded_cache_content (store);
  layer->crew = options->crew;
  layer->waiters = options->waiters;
  layer->file = layer->clusters = store;
  pthread_mutex_init (&layer->limit.lock, NULL);
  *result = layer;

  r = store_get_size (store, &size);
  if (r < 0) {
    report_error ("%s: the size cannot be read: %s", store->name,
                  strerror (-r));
    return r;
  }
  atomic_init (&layer->file_size, size);
  if (format == IMAGE_RAW) {
    layer->size = size;
    return 0;
  }
  return open_qcow2 (layer, options, depth);
}

void
layer_close (struct layer *layer)
{
  decoded_cache_drop_layer (layer->decoded, layer);
  if (layer->clusters != layer->file && layer->clusters != layer->data_file)
    store_close (layer->clusters);
  store_close (layer->data_file);
  store_close (layer->file);
  bitmap_list_free (layer->bitmaps);
  snapshot_list_free (layer->snapshots);
  header_free (&layer->header);
  pthread_mutex_destroy (&layer->limit.lock);
  free (layer->l1);
  free (layer->l2);
  free (layer);
}
