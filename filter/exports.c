/* qcow2ext: the list of exports.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config.h"
#include "describe.h"
#include "exports.h"
#include "sessions.h"

/* Limits of nbdkit and of the NBD protocol on lists of exports. */
#define MAX_EXPORTS 10000
#define NBD_MAX_STRING 4096

/* Of more bitmaps than that the list does not say how much has changed. */
#define MAX_COUNTED 64

#define SNAPSHOT "snapshot:"
#define BITMAP "bitmap:"

/* What comes after prefix in a name that begins with it, or NULL. */
static const char *
after (const char *name, const char *prefix)
{
  const size_t n = strlen (prefix);

  return strncmp (name, prefix, n) == 0 ? name + n : NULL;
}

int
exports_parse (const char *name, struct export *export)
{
  *export = served_image_default_export ();
  if (!config.all_exports || name[0] == '\0')
    return 0;
  if ((export->name = after (name, SNAPSHOT)) != NULL)
    export->kind = EXPORT_SNAPSHOT;
  else if ((export->name = after (name, BITMAP)) != NULL)
    export->kind = EXPORT_BITMAP;
  else {
    nbdkit_error ("there is no export \"%s\": the disk is \"\", others are "
                  SNAPSHOT "ID and " BITMAP "NAME (nbdinfo --list shows them)",
                  name);
    return -1;
  }
  return 0;
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
      r = add (list, SNAPSHOT, s->id, describe_snapshot (s));
  }
  for (size_t i = 0; r == 0 && i < bitmaps; i++)
    r = add (list, BITMAP, image_bitmap (image, i).name,
             describe_bitmap (image, i, i < MAX_COUNTED));
  if (r == 0 && list->left_out)
    nbdkit_error ("warning: %zu exports are not listed, because a list has at "
                  "most %d, with names of at most %d bytes; they can be "
                  "opened", list->left_out, MAX_EXPORTS, NBD_MAX_STRING);
  return r;
}

/* The list has a session of its own: one that a client could join would not
 * let it write.
 */
int
exports_list (struct served_image *served, nbdkit_backend *backend,
              struct nbdkit_exports *exports)
{
  static const struct export all = { .kind = EXPORT_LIST };
  struct list list = { .exports = exports };
  struct session *s;
  int r;

  if (!config.all_exports)
    return nbdkit_add_export (exports, "", NULL);

  s = session_get (served, backend, false, &all);
  if (s == NULL)
    return -1;
  r = add_all (&list, s->open.image);
  session_put (s);
  return r;
}
