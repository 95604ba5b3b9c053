/* qcow2ext: what the names in an image may lead to.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The operator is trusted, an image is not (CVE-2024-32498: a data file named
 * "/etc/passwd").  Files that an image names are opened here, and nowhere
 * else.  The rules:
 *
 * - A file given on the command line is opened as it is, and what it names in
 *   turn may lie in its own directory.  Only the command line can say that
 *   a file is on an NBD server.
 * - A name in an image is a path, relative to the directory of that image (if
 *   the image was reached through a symbolic link: first the link's, then the
 *   file's); a protocol ("nbd:", "json:") is refused.
 * - It must lead, all symbolic links resolved, into an allowed tree: those of
 *   qcow2ext-allow=, or else the directories, in that sense, of the nearest
 *   image above that the operator named.  An image on a block device has no
 *   such directory: /dev holds every disk of the machine.  Nor has one right in
 *   /, below which is everything, nor one of dir=: its neighbours are other
 *   images.  If an allowed tree is in /dev, links in it to devices lead into it.
 * - Between the check and the opening nothing may move: the file is opened
 *   from the tree's root downwards, and no link is followed any more.  The
 *   root is a descriptor (trees.c), or a path that had no link in it when the
 *   server started and is opened without following one (qcow2ext-allow=).
 * - The directories of the image are those of the file that was opened here, so
 *   that file must have the name, and not only what the layers below show.
 * - Only regular files and block devices, seen to be such before they are
 *   opened; each file once in a chain.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "beneath.h"
#include "config.h"
#include "name-policy.h"
#include "own-header.h"
#include "store-file.h"

static char *
directory_of (const char *path)
{
  const char *slash = strrchr (path, '/');

  if (slash == NULL)
    return strdup (".");
  return strndup (path, slash == path ? 1 : slash - path);
}

int
named_files_add (struct named_files *files, const struct stat *st)
{
  struct file_id *seen =
    realloc (files->seen, (files->nr_seen + 1) * sizeof *seen);

  if (seen == NULL)
    return -ENOMEM;
  files->seen = seen;
  files->seen[files->nr_seen++] = file_id_of (st);
  return 0;
}

static void
place_free (struct place *place)
{
  free (place->dir[0]);
  free (place->dir[1]);
  place->dir[0] = place->dir[1] = NULL;
}

/* Sets a place to that of the file at path. */
static int
place_set (struct place *place, const char *path)
{
  CLEANUP_FREE char *resolved = realpath (path, NULL);

  place_free (place);
  place->dir[0] = directory_of (path);
  if (place->dir[0] && resolved)
    place->dir[1] = directory_of (resolved);
  if (place->dir[0] == NULL || (resolved && place->dir[1] == NULL)) {
    place_free (place);
    return -ENOMEM;
  }
  if (place->dir[1] && strcmp (place->dir[0], place->dir[1]) == 0) {
    free (place->dir[1]);
    place->dir[1] = NULL;
  }
  return 0;
}

int
named_files_init (struct named_files *files, const char *path,
                  const struct stat *st)
{
  int r;

  *files = (struct named_files) { .image_fd = -1 };
  if (path == NULL)
    return 0;
  r = named_files_enter (files, path, st, true);
  if (r == 0 && (r = named_files_add (files, st)) < 0)
    report_error ("%s: %s", path, strerror (-r));
  if (r < 0)
    named_files_free (files);
  return r;
}

void
named_files_free (struct named_files *files)
{
  place_free (&files->layer);
  trees_free (&files->trees);
  free (files->seen);
}

int
named_files_enter (struct named_files *files, const char *path,
                   const struct stat *st, bool trusted)
{
  int r = place_set (&files->layer, path);

  if (r == 0 && trusted)
    r = trees_set (&files->trees, path, st);
  if (r < 0)
    report_error ("%s: the directory of the file cannot be found: %s", path,
                  strerror (-r));
  return r;
}

void
named_files_enter_remote (struct named_files *files)
{
  place_free (&files->layer);
  trees_free (&files->trees);
}

static bool
has_protocol (const char *name)
{
  return name[strcspn (name, ":/")] == ':';
}

/* If path is strictly below root, what comes after root; else NULL. */
static const char *
path_below (const char *path, const char *root)
{
  const size_t len = strlen (root);

  if (strcmp (root, "/") == 0)
    return path[1] ? path + 1 : NULL;
  if (strncmp (path, root, len) == 0 && path[len] == '/')
    return path + len + 1;
  return NULL;
}

struct name_advice
name_or_give (const struct name_request *q, const char *before)
{
  struct name_advice a = { "" };

  if (q->parameter && !config.directory)
    snprintf (a.text, sizeof a.text, "%s%s=", before, q->parameter);
  return a;
}

/* given: the operator has said where it is. */
static void
report_open_error (const struct name_request *q, const char *path, int error,
                   bool given)
{
  if (error == -EINVAL)
    report_error ("%s: the %s %s is neither a regular file nor a block "
                  "device", q->of->name, q->what, path);
  else
    report_error ("%s: the %s %s cannot be opened: %s%s", q->of->name,
                  q->what, path, beneath_explain (error), given ? ""
                  : name_or_give (q, "; if it has moved, say where it is "
                                  "with ").text);
}

int
name_open_trusted (const struct name_request *q, struct stat *st)
{
  const int fd = beneath_open (AT_FDCWD, q->name, q->writable, st);

  if (fd < 0)
    report_open_error (q, q->name, fd, true);
  return fd;
}

static int
refuse (const struct name_request *q, const char *path,
        const struct trees *trees)
{
  if (config.directory && !config.allow_none && config.nr_allow == 0)
    report_error ("%s: the image names the %s \"%s\"; with dir= an image may "
                  "name nothing by itself; if images may use files of a "
                  "directory, allow that with qcow2ext-allow=", q->of->name,
                  q->what, q->name);
  else if (config.allow_none)
    report_error ("%s: the image names the %s \"%s\", and qcow2ext-allow="
                  "none allows no file that an image names%s", q->of->name,
                  q->what, q->name, name_or_give (q, "; give it with ").text);
  else if (config.nr_allow)
    report_error ("%s: the image names the %s \"%s\", which is %s and not in "
                  "a directory of qcow2ext-allow=; if the image may use it, "
                  "allow its directory too%s", q->of->name, q->what,
                  q->name, path, name_or_give (q, ", or give ").text);
  else if (trees->nr == 0)
    report_error ("%s: the image names the %s \"%s\", which is %s; %s; if the "
                  "image may use it, allow its directory with "
                  "qcow2ext-allow=%s", q->of->name, q->what, q->name, path,
                  trees->none, name_or_give (q, ", or give ").text);
  else
    report_error ("%s: the image names the %s \"%s\", which is %s and "
                  "outside %s; if the image may use it, allow its directory "
                  "with qcow2ext-allow=%s", q->of->name, q->what, q->name,
                  path, trees->tree[0].path,
                  name_or_give (q, ", or give ").text);
  return -EACCES;
}

/* Opens path if it lies in the tree. */
static int
open_in_tree (const struct tree *tree, const char *path, bool writable,
              struct stat *st, int *fd)
{
  const char *rest = path_below (path, tree->path);

  if (rest == NULL)
    return 0;
  *fd = beneath_open (tree->fd, rest, writable, st);
  return 1;
}

/* The same for a directory of qcow2ext-allow=.  The directory may have been
 * mounted since the server started, so it is opened only now.  It had no link
 * in its path then; one that is there now may be anybody's.
 */
static int
open_in_allowed (const char *dir, const char *path, bool writable,
                 struct stat *st, int *fd)
{
  const char *rest = path_below (path, dir);
  CLEANUP_CLOSE int dir_fd = -1;

  if (rest == NULL)
    return 0;
  dir_fd = beneath_open_directory (dir);
  *fd = dir_fd < 0 ? dir_fd : beneath_open (dir_fd, rest, writable, st);
  return 1;
}

/* Opens the device that a link in an allowed directory leads to, if that
 * directory is in /dev, where none but the system makes links: the names of
 * LVM's volumes are such.
 */
static int
open_device_link (const char *allowed, const char *named, bool writable,
                  struct stat *st, int *fd)
{
  CLEANUP_FREE char *dir = directory_of (named);
  CLEANUP_FREE char *resolved_dir = dir ? realpath (dir, NULL) : NULL;
  CLEANUP_FREE char *link = NULL;

  if (resolved_dir == NULL || path_below (allowed, "/dev") == NULL
      || asprintf (&link, "%s/%s", resolved_dir, strrchr (named, '/') + 1)
         == -1)
    return 0;
  if (path_below (link, allowed) == NULL)
    return 0;
  *fd = beneath_open (AT_FDCWD, link, writable, st);
  if (*fd >= 0 && !S_ISBLK (st->st_mode)) {
    close (*fd);
    return 0;
  }
  return 1;
}

/* Finds what an image named: *named is its path without, *path with symbolic
 * links resolved.  Returns 0 or -errno (reported).
 */
static int
find_named (const struct named_files *files, const struct name_request *q,
            char **named, char **path)
{
  int error = 0;

  for (int i = 0; i < 2 && files->layer.dir[i]; i++) {
    free (*named);
    if (q->name[0] == '/')
      *named = strdup (q->name);
    else if (asprintf (named, "%s/%s", files->layer.dir[i], q->name) == -1)
      *named = NULL;
    if (*named == NULL)
      return -ENOMEM;
    *path = realpath (*named, NULL);
    if (*path)
      return 0;
    error = errno;
    if (error != ENOENT)
      break;
  }
  report_open_error (q, *named, -error, false);
  return -error;
}

/* Is it the image's own file that has the name? */
static int
check_own_header (const struct named_files *files,
                  const struct name_request *q)
{
  int r;

  if (!q->is_top || files->image_fd == -1)
    return 0;
  r = own_header_names (files->image_fd, q->of, q->is_data, q->name);
  if (r == 0) {
    report_error ("%s: the layers below qcow2ext show an image that names the "
                  "%s \"%s\", but the file does not: it has been replaced or "
                  "changed (try again)%s", q->of->name, q->what, q->name,
                  name_or_give (q, "; or give ").text);
    return -EACCES;
  }
  return r < 0 ? r : 0;
}

int
name_open_untrusted (struct named_files *files, const struct name_request *q,
                     char **named, char **path, struct stat *st)
{
  bool allowed = false;
  int fd = -ENOENT, r;

  if (has_protocol (q->name)) {
    report_error ("%s: the image names the %s \"%s\": only paths are "
                  "allowed in an image, no protocols%s", q->of->name,
                  q->what, q->name,
                  name_or_give (q, "; if it may use a file of that name, give "
                                "it with ").text);
    return -EACCES;
  }
  if (files->layer.dir[0] == NULL) {
    report_error ("%s: the image names the %s \"%s\", but the image is not "
                  "a local file, so there is no directory to look in%s",
                  q->of->name, q->what, q->name,
                  name_or_give (q, "; give it with ").text);
    return -EACCES;
  }
  if (config.allow_none || (config.directory && config.nr_allow == 0))
    return refuse (q, q->name, &files->trees);
  if (config.nr_allow == 0 && (r = check_own_header (files, q)) < 0)
    return r;

  r = find_named (files, q, named, path);
  if (r < 0)
    return r;

  if (config.nr_allow == 0)
    for (unsigned i = 0; i < files->trees.nr && !allowed; i++)
      allowed = open_in_tree (&files->trees.tree[i], *path, q->writable, st,
                              &fd);
  for (size_t i = 0; !allowed && i < config.nr_allow; i++)
    allowed = open_in_allowed (config.allow[i], *path, q->writable, st, &fd)
      || open_device_link (config.allow[i], *named, q->writable, st, &fd);
  if (!allowed)
    return refuse (q, *path, &files->trees);
  if (fd < 0)
    report_open_error (q, *path, fd, false);
  return fd;
}
