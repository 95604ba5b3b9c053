/* qcow2ext: an open image and the layers under it.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Opening goes from the top of the chain down; whatever fails takes down all
 * that was opened.  The caches belong to the top layer and are shared.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"
#include "image/check.h"
#include "base/cleanup.h"
#include "data/compress.h"
#include "image/image.h"
#include "base/mutant.h"
#include "disk/snapshot.h"
#include "map/table-cache.h"
#include "image/writer.h"

/* How much of an L1 table is looked at in one go. */
#define L1_CHUNK 65536

static bool
is_zero (const void *p, size_t n)
{
  const uint8_t *b = p;

  return n == 0 || (b[0] == 0 && memcmp (b, b + 1, n - 1) == 0);
}

/* Reads an L1 table that has been found to be within the limits.  Pages of
 * the table that hold nothing cost no memory: a huge, empty disk is cheap.
 */
static int
read_l1 (struct layer *layer, uint64_t offset, uint32_t entries)
{
  const size_t bytes = entries * sizeof (be64);
  CLEANUP_FREE uint8_t *chunk = malloc (L1_CHUNK);
  int r;

  if (bytes > 0 && (offset > image_file_size (layer)
                    || bytes > image_file_size (layer) - offset)) {
    report_error ("%s: the L1 table lies past the end of the file (is the "
                  "image cut short?)", layer->file->name);
    return -EINVAL;
  }

  layer->l1 = calloc (entries + 1, sizeof (be64));
  layer->l2 = calloc (entries + 1, sizeof *layer->l2);
  if (chunk == NULL || layer->l1 == NULL || layer->l2 == NULL)
    return -ENOMEM;

  for (size_t pos = 0; pos < bytes; pos += L1_CHUNK) {
    const size_t n = bytes - pos < L1_CHUNK ? bytes - pos : L1_CHUNK;

    r = store_pread (layer->file, chunk, n, offset + pos);
    if (r < 0) {
      report_error ("%s: the L1 table cannot be read: %s", layer->file->name,
                    strerror (-r));
      return r;
    }
    if (!is_zero (chunk, n))
      memcpy ((uint8_t *) layer->l1 + pos, chunk, n);
  }
  layer->l1_entries = entries;
  return 0;
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
  const unsigned coverage = header_l2_coverage_bits (&layer->header);
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
  r = header_check_table (store, layer->cluster_bits, "snapshot's L1 table",
                          s->l1_offset, s->l1_entries, sizeof (be64),
                          QCOW2_MAX_L1_BYTES);
  if (r < 0)
    return r;
  if (s->disk_size > INT64_MAX
      || (s->disk_size >> coverage)
         + !!(s->disk_size & ((UINT64_C (1) << coverage) - 1))
         > s->l1_entries
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
                image_file_size (layer));
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

  layer->data = NULL;
  r = env->open_data (env->opaque, depth, layer->file,
                      layer->header.data_file, &layer->data);
  if (r < 0 || !layer->data->fixed_size)
    return r;
  r = store_get_size (layer->data, &size);
  if (r == 0 && size < layer->size) {
    report_error ("%s: the external data file %s has %" PRIu64 " bytes and "
                  "cannot grow, too small for a disk of %" PRIu64,
                  layer->file->name, layer->data->name, size, layer->size);
    r = -EINVAL;
  }
  return r;
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
  layer->cluster_bits = h->cluster_bits;
  layer->extended = header_is_extended (h);
  layer->external = header_has_data_file (h);
  layer->l2_bits = h->cluster_bits - (layer->extended ? 4 : 3);
  layer->unit_bits = h->cluster_bits - (layer->extended ? 5 : 0);
  layer->size = h->size;
  if (MUTANT (refuse_dirty) && (h->incompatible & QCOW2_INCOMPAT_DIRTY))
    return -EINVAL;
  debug_header (layer, depth);
  if (options->warn)
    warn_about_state (layer);

  if (depth == 0 && options->want_data_file && !layer->external) {
    report_error ("%s: an external data file was given, but the image does "
                  "not use one", layer->file->name);
    return -EINVAL;
  }
  /* Only those of the image that is served are of use to anybody. */
  if (depth == 0
      && (r = snapshot_list_read (layer->file, h, &layer->snapshots)) < 0)
    return r;
  if (depth == 0 && (r = bitmap_list_read (layer)) < 0)
    return r;
  if (depth == 0 && options->snapshot)
    r = open_snapshot (layer, options->snapshot);
  else
    r = read_l1 (layer, h->l1_offset, h->l1_entries);
  if (r < 0)
    return r;

  return layer->external ? open_data (layer, env, depth) : 0;
}

/* Opens one layer.  Takes the store. */
static int
open_layer (struct store *store, enum image_format format,
            const struct image_options *options, unsigned depth,
            struct layer **result)
{
  struct layer *layer = calloc (1, sizeof *layer);
  uint64_t size;
  int r;

  if (layer == NULL) {
    store_close (store);
    return -ENOMEM;
  }
  layer->format = format;
  layer->file = layer->data = store;
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

/* Opens what is below a layer, if there is something. */
static int
open_next_layer (struct layer *top, struct layer *above,
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
  if (header_is_raw (&above->header)) {
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
  r = open_layer (store, format, options, depth + 1, &above->backing);
  if (above->backing) {
    above->backing->tables = top->tables;
    above->backing->decoded = top->decoded;
  }
  return r;
}

/* Checks an image because the user wants it; errors are no failure. */
static int
check_at_open (struct layer *layer)
{
  struct check_result result;
  int r = image_check (layer, true, &result);

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
  layer->damaged = result.errors > 0;
  return 0;
}

int
image_open (struct store *store, const struct image_options *options,
            struct layer **result)
{
  struct layer *top = NULL, *layer;
  unsigned depth = 0;
  int r;

  r = open_layer (store, IMAGE_QCOW2, options, 0, &top);
  if (r == 0) {
    top->tables = table_cache_new (options->l2_cache_size);
    top->decoded = decoded_cache_new (options->decoded_cache_size);
    if (top->tables == NULL || top->decoded == NULL)
      r = -ENOMEM;
  }
  for (layer = top; r == 0 && layer && layer->format == IMAGE_QCOW2;
       layer = layer->backing)
    if (layer->header.backing_file || depth == 0)
      r = open_next_layer (top, layer, options, depth++);

  if (r == 0 && options->bitmap)
    r = bitmap_show (top, options->bitmap);
  if (r == 0 && options->check)
    r = check_at_open (top);
  if (r == 0 && options->write_env)
    r = writer_open (top, options->write_env);

  if (r < 0) {
    if (r == -ENOMEM)
      report_error ("the image cannot be opened: out of memory");
    image_close (top);
    return r;
  }
  *result = top;
  return 0;
}

void
image_close (struct layer *layer)
{
  struct table_cache *tables = layer ? layer->tables : NULL;
  struct decoded_cache *decoded = layer ? layer->decoded : NULL;

  while (layer) {
    struct layer *backing = layer->backing;

    writer_close (layer);
    if (layer->l2 && tables)
      table_cache_drop (layer);
    if (layer->data != layer->file)
      store_close (layer->data);
    store_close (layer->file);
    bitmap_list_free (layer);
    snapshot_list_free (layer->snapshots);
    header_free (&layer->header);
    pthread_mutex_destroy (&layer->limit.lock);
    free (layer->l1);
    free (layer->l2);
    free (layer);
    layer = backing;
  }
  table_cache_free (tables);
  decoded_cache_free (decoded);
}

static const char *
base_name (const char *path)
{
  const char *slash = strrchr (path, '/');

  return slash && slash[1] ? slash + 1 : path;
}

char *
image_describe (const struct layer *layer)
{
  const struct header *h = &layer->header;
  const unsigned bits = layer->cluster_bits;
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
  if (layer->extended)
    fputs (", extended L2", f);
  if (h->compression_type == QCOW2_COMPRESSION_ZSTD)
    fputs (", zstd", f);
  if (layer->external)
    fprintf (f, ", %sexternal data file %s",
             header_is_raw (h) ? "raw " : "", base_name (layer->data->name));
  if (layer->backing)
    fprintf (f, ", backing file %s", base_name (layer->backing->file->name));
  if (fclose (f) != 0) {
    free (description);
    return NULL;
  }
  report_mask (description);
  return description;
}
