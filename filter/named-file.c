/* qcow2ext: files that an image names.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The operator is trusted, an image is not (CVE-2024-32498: a data file named
 * "/etc/passwd").  This file is the only place that opens what an image
 * names.  The rules:
 *
 * - A file given on the command line is opened as it is, and what it names in
 *   turn may lie in its own directory.  Only the command line can say that
 *   data is on an NBD server.
 * - A name in an image is a path, relative to the directory of that image (if
 *   the image was reached through a symbolic link: first the link's, then the
 *   file's); a protocol ("nbd:", "json:") is refused.
 * - It must lead, all symbolic links resolved, into an allowed tree: those of
 *   qcow2ext-allow=, or else the directories, in that sense, of the nearest
 *   image above that the operator named.
 * - Between the check and the opening nothing may move: the file is opened
 *   from the tree's root downwards, and no link is followed any more.
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
#include <sys/syscall.h>
#include <unistd.h>

#if __has_include(<linux/openat2.h>)
#include <linux/openat2.h>
#endif

#include "base/cleanup.h"
#include "image-lock.h"
#include "named-file.h"
#include "base/report.h"
#include "store-nbd.h"

static char *
directory_of (const char *path)
{
  const char *slash = strrchr (path, '/');

  if (slash == NULL)
    return strdup (".");
  return strndup (path, slash == path ? 1 : slash - path);
}

static int
remember (struct named_files *files, const struct stat *st)
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
  memset (files, 0, sizeof *files);
  if (path == NULL)
    return 0;
  if (place_set (&files->layer, path) < 0
      || place_set (&files->tree, path) < 0 || remember (files, st) < 0) {
    named_files_free (files);
    return -ENOMEM;
  }
  return 0;
}

void
named_files_free (struct named_files *files)
{
  place_free (&files->layer);
  place_free (&files->tree);
  free (files->seen);
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

/* Opens rest, which has no link in it as far as we saw, below root_fd, and
 * fails if by now it has one.
 */
static int
open_components (int root_fd, const char *rest, int flags)
{
  CLEANUP_CLOSE int dir = -1;
  int at = root_fd;

  for (;;) {
    const size_t len = strcspn (rest, "/");
    char component[256];
    int fd;

    if (len >= sizeof component)
      return -ENAMETOOLONG;
    memcpy (component, rest, len);
    component[len] = '\0';

    if (rest[len] == '\0') {
      fd = openat (at, component, flags | O_NOFOLLOW);
      return fd == -1 ? -errno : fd;
    }
    fd = openat (at, component,
                 O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd == -1)
      return -errno;
    if (dir != -1)
      close (dir);
    at = dir = fd;
    rest += len + 1;
  }
}

static int
open_beneath (int root_fd, const char *rest, int flags)
{
#if defined (SYS_openat2) && defined (RESOLVE_BENEATH)
  const struct open_how how = {
    .flags = flags,
    .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
  };
  const long fd = syscall (SYS_openat2, root_fd, rest, &how, sizeof how);

  if (fd >= 0)
    return fd;
  /* Old kernels lack it, and sandboxes that do not know it say EPERM. */
  if (errno != ENOSYS && errno != EPERM)
    return -errno;
#endif
  return open_components (root_fd, rest, flags);
}

/* Opens rest below root_fd (AT_FDCWD with a plain path: the operator's)
 * having made sure, without opening it, that it is a regular file or a block
 * device.  Returns a descriptor or -errno; -EINVAL is "of another kind".
 */
static int
open_checked (int root_fd, const char *rest, bool writable, struct stat *st)
{
  const int flags = O_NONBLOCK | O_NOCTTY | O_CLOEXEC
    | (writable ? O_RDWR : O_RDONLY);
  CLEANUP_CLOSE int probe = -1;
  struct file_id expected, found;
  int fd;

  if (root_fd == AT_FDCWD)
    probe = open (rest, O_PATH | O_CLOEXEC);
  else
    probe = open_beneath (root_fd, rest, O_PATH | O_CLOEXEC);
  if (probe < 0)
    return root_fd == AT_FDCWD ? -errno : probe;
  if (fstat (probe, st) == -1)
    return -errno;
  if (!S_ISREG (st->st_mode) && !S_ISBLK (st->st_mode))
    return -EINVAL;

  if (root_fd == AT_FDCWD)
    fd = open (rest, flags);
  else
    fd = open_beneath (root_fd, rest, flags);
  if (fd < 0)
    return root_fd == AT_FDCWD ? -errno : fd;

  expected = file_id_of (st);
  if (fstat (fd, st) == -1) {
    close (fd);
    return -EIO;
  }
  found = file_id_of (st);
  if (!file_id_equal (&expected, &found)) {
    close (fd);
    return -EAGAIN;             /* exchanged under our hands */
  }
  return fd;
}

/* As open_checked, but for writing if that is wanted and allowed. */
static int
open_either (int root_fd, const char *rest, bool writable, struct stat *st)
{
  const int fd = open_checked (root_fd, rest, writable, st);

  if (writable && (fd == -EACCES || fd == -EPERM || fd == -EROFS))
    return open_checked (root_fd, rest, false, st);
  return fd;
}

/* What an opening is about, for messages. */
struct request {
  bool writable;                /* open it for writing if possible */
  bool lock;
  const struct store *of;
  const char *what;             /* "external data file", "backing file" */
  const char *name;             /* as the image or the operator wrote it */
  const char *parameter;        /* that would name it outright; NULL: none */
};

/* The end of a message: what else the operator may do. */
struct advice {
  char text[80];
};

static struct advice
or_give (const struct request *q, const char *before)
{
  struct advice a = { "" };

  if (q->parameter)
    snprintf (a.text, sizeof a.text, "%s%s=", before, q->parameter);
  return a;
}

static void
report_open_error (const struct request *q, const char *path, int error)
{
  if (error == -EINVAL)
    report_error ("%s: the %s %s is neither a regular file nor a block "
                  "device", q->of->name, q->what, path);
  else
    report_error ("%s: the %s %s cannot be opened: %s%s", q->of->name,
                  q->what, path, strerror (-error),
                  or_give (q, "; if it has moved, say where it is with ")
                  .text);
}

/* Opens what the operator named. */
static int
open_trusted (const struct request *q, struct stat *st)
{
  const int fd = open_either (AT_FDCWD, q->name, q->writable, st);

  if (fd < 0)
    report_open_error (q, q->name, fd);
  return fd;
}

static int
refuse (const struct request *q, const char *path, const char *tree)
{
  if (config.allow_none)
    report_error ("%s: the image names the %s \"%s\", and qcow2ext-allow="
                  "none allows no file that an image names%s", q->of->name,
                  q->what, q->name, or_give (q, "; give it with ").text);
  else if (config.nr_allow)
    report_error ("%s: the image names the %s \"%s\", which is %s and not in "
                  "a directory of qcow2ext-allow=; if the image may use it, "
                  "allow its directory too%s", q->of->name, q->what,
                  q->name, path, or_give (q, ", or give ").text);
  else
    report_error ("%s: the image names the %s \"%s\", which is %s and "
                  "outside %s; if the image may use it, allow its directory "
                  "with qcow2ext-allow=%s", q->of->name, q->what, q->name,
                  path, tree ? tree : "any allowed directory",
                  or_give (q, ", or give ").text);
  return -EACCES;
}

/* Opens path if it lies in the tree below root. */
static int
open_in_tree (const char *root, const char *path, bool writable,
              struct stat *st, int *fd)
{
  CLEANUP_FREE char *resolved = realpath (root, NULL);
  CLEANUP_CLOSE int root_fd = -1;
  const char *rest;

  if (resolved == NULL || (rest = path_below (path, resolved)) == NULL)
    return 0;
  root_fd = open (resolved, O_PATH | O_DIRECTORY | O_CLOEXEC);
  *fd = root_fd == -1 ? -errno : open_either (root_fd, rest, writable, st);
  return 1;
}

/* Finds what an image named: *named is its path without, *path with symbolic
 * links resolved.  Returns 0 or -errno (reported).
 */
static int
find_named (const struct named_files *files, const struct request *q,
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
  report_open_error (q, *named, -error);
  return -error;
}

/* Opens what an image named, if the policy allows it.  Returns a descriptor
 * or -errno (reported); *named and *path are as by find_named.
 */
static int
open_untrusted (struct named_files *files, const struct request *q,
                char **named, char **path, struct stat *st)
{
  bool allowed = false;
  int fd = -ENOENT, r;

  if (has_protocol (q->name)) {
    report_error ("%s: the image names the %s \"%s\": only paths are "
                  "allowed in an image, no protocols%s", q->of->name,
                  q->what, q->name,
                  or_give (q, "; if it may use a file of that name, give it "
                           "with ").text);
    return -EACCES;
  }
  if (files->layer.dir[0] == NULL) {
    report_error ("%s: the image names the %s \"%s\", but the image is not "
                  "a local file, so there is no directory to look in%s",
                  q->of->name, q->what, q->name,
                  or_give (q, "; give it with ").text);
    return -EACCES;
  }
  if (config.allow_none)
    return refuse (q, q->name, NULL);

  r = find_named (files, q, named, path);
  if (r < 0)
    return r;

  for (int i = 0; i < 2 && config.nr_allow == 0 && !allowed; i++)
    if (files->tree.dir[i])
      allowed = open_in_tree (files->tree.dir[i], *path, q->writable, st,
                              &fd);
  for (size_t i = 0; !allowed && i < config.nr_allow; i++)
    allowed = open_in_tree (config.allow[i], *path, q->writable, st, &fd);
  if (!allowed)
    return refuse (q, *path, files->tree.dir[0]);
  if (fd < 0)
    report_open_error (q, *path, fd);
  return fd;
}

/* Makes a store of an open file, if it is not in the chain already. */
static int
make_store (struct named_files *files, const struct request *q, int fd,
            const char *path, const struct stat *st, struct store **store)
{
  const struct file_id id = file_id_of (st);
  int r;

  for (size_t i = 0; i < files->nr_seen; i++)
    if (file_id_equal (&files->seen[i], &id)) {
      report_error ("%s: the %s %s is already in use as another part of the "
                    "same chain", q->of->name, q->what, path);
      close (fd);
      return -ELOOP;
    }
  r = remember (files, st);
  if (r == 0 && q->lock)
    r = image_lock (fd, false, path);
  if (r < 0) {
    close (fd);
    return r;
  }
  *store = store_file_new (fd, path);
  return *store ? 0 : -errno;
}

/* The data is on an NBD server, says the operator. */
static int
open_nbd (const struct named_files *files, struct store **store)
{
#ifdef HAVE_LIBNBD
  return files->connect
    ? store_nbd_open (config.data_file, files->writable, store)
    : store_nbd_placeholder (config.data_file, store);
#else
  (void) files, (void) store;
  return -ENOTSUP;              /* config.c has refused it */
#endif
}

int
named_open_data (void *opaque, unsigned depth, const struct store *of,
                 const char *name, struct store **store)
{
  struct named_files *files = opaque;
  struct request q = {
    .of = of, .what = "external data file", .name = name,
    .parameter = depth == 0 ? "qcow2ext-data-file" : NULL, 
    .writable = files->writable && depth == 0,
  };
  CLEANUP_FREE char *named = NULL, *path = NULL;
  struct stat st;
  int fd;

  if (depth == 0 && config.data_is_nbd)
    return open_nbd (files, store);
  if (depth == 0 && config.data_file) {
    q.name = config.data_file;
    fd = open_trusted (&q, &st);
  }
  else if (name == NULL) {
    report_error ("%s: the image has an external data file but does not "
                  "name it%s", of->name,
                  or_give (&q, "; give it with ").text);
    return -EINVAL;
  }
  else
    fd = open_untrusted (files, &q, &named, &path, &st);
  if (fd < 0)
    return fd;
  return make_store (files, &q, fd, path ? path : q.name, &st, store);
}

/* The format of a backing file is never guessed: a raw guest could write a
 * qcow2 header onto its disk.
 */
static int
backing_format (const struct store *of, unsigned depth, const char *format,
                enum image_format *as)
{
  if (config.backing_format && (depth == 0 || format == NULL))
    format = config.backing_format;
  if (format == NULL) {
    report_error ("%s: the image does not say which format its backing file "
                  "has; give it with qcow2ext-backing-format=raw or =qcow2",
                  of->name);
    return -EINVAL;
  }
  if (strcmp (format, "raw") == 0)
    *as = IMAGE_RAW;
  else if (strcmp (format, "qcow2") == 0)
    *as = IMAGE_QCOW2;
  else {
    report_error ("%s: the backing file has the format \"%s\", which is not "
                  "supported (only raw and qcow2 are)", of->name, format);
    return -ENOTSUP;
  }
  return 0;
}

/* What the layer just opened names is relative to its directory. */
static int
enter_layer (struct named_files *files, const char *path, bool trusted)
{
  int r = place_set (&files->layer, path);

  if (r == 0 && trusted)
    r = place_set (&files->tree, path);
  return r;
}

int
named_open_backing (void *opaque, unsigned depth, const struct store *of,
                    const char *name, const char *format,
                    struct store **store, enum image_format *as)
{
  struct named_files *files = opaque;
  const bool trusted = depth == 0 && config.backing_file;
  struct request q = {
    .of = of, .what = "backing file",
    .name = trusted ? config.backing_file : name,
    .lock = files->lock,
    .parameter = depth == 0 ? "qcow2ext-backing-file" : NULL,
  };
  CLEANUP_FREE char *named = NULL, *path = NULL;
  struct stat st;
  int fd, r;

  *store = NULL;
  if (q.name == NULL || (trusted && strcmp (q.name, "none") == 0))
    return 0;
  if ((r = backing_format (of, depth, format, as)) < 0)
    return r;

  if (trusted)
    fd = open_trusted (&q, &st);
  else
    fd = open_untrusted (files, &q, &named, &path, &st);
  if (fd < 0)
    return fd;
  r = make_store (files, &q, fd, path ? path : q.name, &st, store);
  if (r == 0)
    r = enter_layer (files, named ? named : q.name, trusted);
  if (r < 0) {
    store_close (*store);
    *store = NULL;
  }
  return r;
}
