/* qcow2ext: the list of exports.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "config.h"
#include "describe.h"
#include "directory.h"
#include "disk/bitmap-directory.h"
#include "disk/header.h"
#include "disk/snapshot.h"
#include "export-name.h"
#include "exports.h"
#include "images.h"
#include "sessions.h"
#include "store-file.h"

/* Limits of nbdkit and of the NBD protocol on lists of exports. */
#define MAX_EXPORTS 10000
#define NBD_MAX_STRING 4096

/* Of more bitmaps than that the list does not say how much has changed. */
#define MAX_COUNTED 64

static void
refuse_empty (void)
{
  nbdkit_error ("with dir= there is no default export: ask for an image by "
                "the name of its file (nbdinfo --list shows those there are)");
}

static int
parse_in_directory (const char *name, struct served_image **served,
                    struct export *export)
{
  CLEANUP_FREE char *file = NULL;
  struct export_name parsed;

  if (name[0] == '\0') {
    refuse_empty ();
    return -1;
  }
  if (!export_name_parse (name, true, config.all_exports, &parsed)) {
    nbdkit_error ("an export was asked for whose name cannot be one: with "
                  "dir= they are names of files, in UTF-8, without slashes%s "
                  "(nbdinfo --list shows those there are)",
                  config.all_exports ? ", and FILE/" EXPORT_SNAPSHOT_PREFIX
                  "ID and FILE/" EXPORT_BITMAP_PREFIX "NAME" : "");
    return -1;
  }
  if (parsed.part)
    *export = (struct export) { parsed.kind, parsed.part };
  file = strndup (name, parsed.file_bytes);
  if (file == NULL) {
    nbdkit_error ("malloc: %m");
    return -1;
  }
  *served = images_get (file);
  return *served ? 0 : -1;
}

int
exports_parse (const char *name, struct served_image **served,
               struct export *export)
{
  struct export_name parsed;

  *export = served_image_default_export ();
  if (config.directory)
    return parse_in_directory (name, served, export);
  *served = images_the_one ();
  if (!config.all_exports)
    return 0;
  if (!export_name_parse (name, false, true, &parsed)) {
    report_error ("there is no export \"%s\": the disk is \"\", others are "
                  EXPORT_SNAPSHOT_PREFIX "ID and " EXPORT_BITMAP_PREFIX
                  "NAME (nbdinfo --list shows them)", name);
    return -1;
  }
  if (parsed.part)
    *export = (struct export) { parsed.kind, parsed.part };
  return 0;
}

const char *
exports_default (void)
{
  if (!config.directory)
    return "";
  refuse_empty ();
  return NULL;
}

/* A list under construction. */
struct list {
  struct nbdkit_exports *exports;
  size_t added, left_out;
};

/* Takes the description.  What NBD cannot name, and what is too much for a
 * list, can be opened all the same.
 */
static int
add (struct list *list, const char *prefix, const char *name,
     char *description)
{
  CLEANUP_FREE char *text = description, *full = NULL;

  if (text == NULL || asprintf (&full, "%s%s", prefix, name) == -1) {
    full = NULL;
    nbdkit_error ("malloc: %m");
    return -1;
  }
  if (list->added >= MAX_EXPORTS || strlen (full) > NBD_MAX_STRING) {
    list->left_out++;
    return 0;
  }
  list->added++;
  return nbdkit_add_export (list->exports, full, text);
}

static int
add_all (struct list *list, const struct image *image)
{
  const struct snapshot_list *snapshots = image_snapshots (image);
  const size_t bitmaps = image_bitmaps (image);
  int r = add (list, "", "", image_describe (image));

  for (size_t i = 0; r == 0 && i < snapshots->count; i++) {
    const struct snapshot *s = &snapshots->snapshot[i];

    if (s->id[0])
      r = add (list, EXPORT_SNAPSHOT_PREFIX, s->id, describe_snapshot (s));
  }
  for (size_t i = 0; r == 0 && i < bitmaps; i++)
    r = add (list, EXPORT_BITMAP_PREFIX, image_bitmap (image, i).name,
             describe_bitmap (image, i, i < MAX_COUNTED));
  return r;
}

/* The snapshots and bitmaps of an image in a directory, as its file has them at
 * this moment: it is neither locked nor waited for.  What cannot be read is
 * left out; opening it says why.
 */
static int
add_parts (struct list *list, struct store *file, const char *name)
{
  CLEANUP_FREE char *prefix = NULL, *bitmap_prefix = NULL;
  struct snapshot_list *snapshots = NULL;
  struct bitmap_list *bitmaps = NULL;
  struct header h;
  uint64_t size;
  int r = 0;

  if (store_get_size (file, &size) < 0 || header_read (file, &h) < 0)
    return 0;
  if (asprintf (&prefix, "%s/" EXPORT_SNAPSHOT_PREFIX, name) == -1)
    prefix = NULL;
  if (asprintf (&bitmap_prefix, "%s/" EXPORT_BITMAP_PREFIX, name) == -1)
    bitmap_prefix = NULL;
  if (prefix == NULL || bitmap_prefix == NULL)
    r = -1;
  else {
    if (h.nb_snapshots && snapshot_list_read (file, &h, &snapshots) < 0)
      snapshots = NULL;
    if (h.has_bitmaps && bitmap_list_read (file, size, &h, &bitmaps) < 0)
      bitmaps = NULL;
  }
  for (size_t i = 0; r == 0 && snapshots && i < snapshots->count; i++)
    if (snapshots->snapshot[i].id[0])
      r = add (list, prefix, snapshots->snapshot[i].id,
               describe_snapshot (&snapshots->snapshot[i]));
  for (size_t i = 0; r == 0 && bitmaps && i < bitmaps->count; i++)
    r = add (list, bitmap_prefix, bitmaps->bitmap[i].name,
             strdup ("bitmap"));
  snapshot_list_free (snapshots);
  bitmap_list_free (bitmaps);
  header_free (&h);
  return r;
}

/* An image of a directory: its header only.  A list that is full ends it (1):
 * there may be millions.
 */
static int
add_file (void *opaque, const char *name, int fd)
{
  struct list *list = opaque;
  struct store *file;
  int r = add (list, "", name, strdup (""));

  if (r == 0 && config.all_exports && (fd = dup (fd)) != -1
      && (file = store_file_new (fd, name)) != NULL) {
    r = add_parts (list, file, name);
    store_close (file);
  }
  return r == 0 && list->added >= MAX_EXPORTS && list->left_out ? 1 : r;
}

/* The list has a session of its own: one that a client could join would not
 * let it write.
 */
static int
list_one (struct list *list, nbdkit_backend *backend)
{
  static const struct export all = { .kind = EXPORT_LIST };
  struct session *s;
  int r;

  if (!config.all_exports)
    return nbdkit_add_export (list->exports, "", NULL);

  s = session_get (images_the_one (), backend, false, &all);
  if (s == NULL)
    return -1;
  r = add_all (list, s->open.image);
  session_put (s);
  return r;
}

int
exports_list (nbdkit_backend *backend, struct nbdkit_exports *exports)
{
  struct list list = { .exports = exports };
  int r;

  r = config.directory ? directory_each (add_file, &list)
                       : list_one (&list, backend);
  if (r >= 0 && list.left_out)
    nbdkit_error ("warning: %zu exports%s are not listed, because a list has "
                  "at most %d, with names of at most %d bytes; they can be "
                  "opened", list.left_out, list.added < MAX_EXPORTS ? ""
                  : " and perhaps more", MAX_EXPORTS, NBD_MAX_STRING);
  return r < 0 ? -1 : 0;
}
