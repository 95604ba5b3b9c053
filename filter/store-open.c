/* qcow2ext: stores of the files of a chain.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A name becomes a store: of a file, a device, or an NBD server.  What it may
 * lead to is decided in name-policy.c.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "config.h"
#include "contents.h"
#include "disk/format.h"
#include "image-lock.h"
#include "store-ahead.h"
#include "store-direct.h"
#include "store-file.h"
#include "store-nbd.h"
#include "store-open.h"

int
store_open_own (int fd, const char *name, struct store **store)
{
  int r;

  if (config.direct)
    *store = store_direct_open (fd, name);
  else {
    posix_fadvise (fd, 0, 0, config.advice);
    *store = store_file_new (fd, name);
  }
  if (*store)
    return 0;
  r = -errno;
  if (config.direct && (r == -EINVAL || r == -EOPNOTSUPP))
    report_error ("%s: qcow2ext-direct=true: direct I/O is not possible: the "
                  "file system does not have it", name);
  else
    report_error ("%s: %s", name, strerror (-r));
  return r;
}

/* Some programs write a name of no bytes where they mean none. */
static const char *
absent_if_empty (const char *name)
{
  return name && name[0] ? name : NULL;
}

/* Makes a store of an open file, if it is not in the chain already.  own: it
 * is the served image's data file.
 */
static int
make_store (struct named_files *files, const struct name_request *q, bool own,
            int fd, const char *path, const struct stat *st,
            struct store **store)
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
  r = named_files_add (files, st);
  if (r == 0 && q->lock)
    r = image_lock (fd, false, path);
  if (r < 0) {
    close (fd);
    return r;
  }
  if (own)
    return store_open_own (fd, path, store);
  *store = store_file_new (fd, path);
  if (*store == NULL)
    return -errno;
  (*store)->content = contents_number (fd, st);
  return 0;
}

/* The file is on an NBD server, says the operator. */
static int
open_nbd (const struct named_files *files, const char *uri, bool writable,
          struct store **store)
{
#ifdef HAVE_LIBNBD
  int r;

  if (!files->connect)
    return store_nbd_placeholder (uri, store);
  if ((r = store_nbd_open (uri, writable, store)) < 0)
    return r;
  *store = store_ahead_new (*store, config.read_ahead_size, false);
  if (*store == NULL) {
    report_error ("%s: %s", uri, strerror (errno));
    return -ENOMEM;
  }
  (*store)->far = true;
  return 0;
#else
  (void) files, (void) uri, (void) writable, (void) store;
  return -ENOTSUP;              /* location.c has refused it */
#endif
}

/* Does the file begin as a qcow2 image does?  1, 0 or -errno. */
static int
begins_like_qcow2 (struct store *file)
{
  be32 magic;
  const int r = store_pread (file, &magic, sizeof magic, 0);

  return r < 0 ? r : be32_get (magic) == QCOW2_MAGIC;
}

int
named_open_data (void *opaque, unsigned depth, const struct store *of,
                 const char *name, struct store **store)
{
  struct named_files *files = opaque;
  struct name_request q = {
    .of = of, .what = "external data file", .is_data = true,
    .is_top = depth == 0,
    .parameter = depth == 0 ? "qcow2ext-data-file" : NULL,
    .writable = files->writable && depth == 0,
    .lock = files->lock && depth > 0, /* that of the image itself: later */
  };
  CLEANUP_FREE char *named = NULL, *path = NULL;
  struct stat st;
  int fd, r;

  q.name = name = absent_if_empty (name);
  if (depth == 0 && config.data_is_nbd)
    return open_nbd (files, config.data_file, files->writable, store);
  if (depth == 0 && config.data_file) {
    q.name = config.data_file;
    fd = name_open_trusted (&q, &st);
  }
  else if (name == NULL) {
    report_error ("%s: the image has an external data file but does not "
                  "name it%s", of->name,
                  name_or_give (&q, "; give it with ").text);
    return -EINVAL;
  }
  else
    fd = name_open_untrusted (files, &q, &named, &path, &st);
  if (fd < 0)
    return fd;
  if (files->drop_cache && depth == 0)
    posix_fadvise (fd, 0, 0, POSIX_FADV_DONTNEED);
  r = make_store (files, &q, depth == 0, fd, path ? path : q.name, &st, store);
  if (r == 0 && depth == 0 && config.data_file
      && begins_like_qcow2 (*store) == 1)
    report_warning ("%s: the external data file %s, which "
                    "qcow2ext-data-file= names, is a qcow2 image; as a data "
                    "file it is overwritten with the disk's data",
                    of->name, (*store)->name);
  return r;
}

/* What the command line says of the layer below that at depth; NULL: nothing.
 * The last format is also that of all layers below of which nobody says one.
 */
static const struct location *
given_file (unsigned depth)
{
  return depth < config.nr_backing ? &config.backing[depth] : NULL;
}

static const char *
given_format (unsigned depth, bool image_says_one)
{
  const size_t n = config.nr_backing_formats;
  const char *format = NULL;

  if (depth < n)
    format = config.backing_formats[depth];
  else if (n > 0 && !image_says_one)
    format = config.backing_formats[n - 1];
  return format && strcmp (format, "auto") != 0 ? format : NULL;
}

/* The format of a backing file is never guessed: a raw guest could write a
 * qcow2 header onto its disk.
 */
static int
backing_format (const struct store *of, unsigned depth, const char *format,
                enum image_format *as)
{
  const char *given;

  format = absent_if_empty (format);
  given = given_format (depth, format != NULL);
  if (given)
    format = given;
  if (format == NULL) {
    report_error ("%s: the image does not say which format its backing file "
                  "has; give it with qcow2ext-backing-format=raw or =qcow2%s",
                  of->name, depth == 0 ? "" : " (again for each layer; =auto "
                  "for what an image says)");
    return -EINVAL;
  }
  if (strcmp (format, "raw") == 0)
    *as = IMAGE_RAW;
  else if (strcmp (format, "qcow2") == 0)
    *as = IMAGE_QCOW2;
  else {
    report_error ("%s: the backing file has the format \"%s\", which is not "
                  "supported (only raw and qcow2 are); let another server "
                  "serve it as a raw disk, and give its URI with "
                  "qcow2ext-backing-file= and qcow2ext-backing-format=raw",
                  of->name, format);
    return -ENOTSUP;
  }
  return 0;
}

/* Is the file what it is said to be?  What cannot be read is seen later. */
static int
check_format (const struct store *of, unsigned depth, struct store *file,
              enum image_format format)
{
  const bool given = depth < config.nr_backing_formats;
  const int is_qcow2 = begins_like_qcow2 (file);

  if (is_qcow2 < 0)
    return 0;
  if (format == IMAGE_QCOW2 && !is_qcow2) {
    report_error ("%s: the backing file %s is not a qcow2 image, as %s",
                  of->name, file->name, given ? "qcow2ext-backing-format= says"
                  : "the image says; give its format with "
                  "qcow2ext-backing-format=");
    return -EINVAL;
  }
  if (format == IMAGE_RAW && is_qcow2 && given_format (depth, true))
    report_warning ("%s: the backing file %s is a qcow2 image, but is read as "
                    "raw, as qcow2ext-backing-format= says", of->name,
                    file->name);
  return 0;
}

static int
open_backing_nbd (struct named_files *files, const char *uri,
                  struct store **store, enum image_format *as)
{
  int r = open_nbd (files, uri, false, store);

  if (r == 0)
    named_files_enter_remote (files);
  /* Before the server starts nothing is known of what is there. */
  if (!files->connect)
    *as = IMAGE_RAW;
  return r;
}

static int
open_backing_file (struct named_files *files, const struct name_request *q,
                   bool trusted, struct store **store)
{
  CLEANUP_FREE char *named = NULL, *path = NULL;
  struct stat st;
  int fd, r;

  if (trusted)
    fd = name_open_trusted (q, &st);
  else
    fd = name_open_untrusted (files, q, &named, &path, &st);
  if (fd < 0)
    return fd;
  r = make_store (files, q, false, fd, path ? path : q->name, &st, store);
  if (r == 0)
    r = named_files_enter (files, named ? named : q->name, &st, trusted);
  return r;
}

int
named_open_backing (void *opaque, unsigned depth, const struct store *of,
                    const char *name, const char *format,
                    struct store **store, enum image_format *as)
{
  struct named_files *files = opaque;
  const struct location *given = given_file (depth);
  const struct name_request q = {
    .of = of, .what = "backing file", .is_top = depth == 0,
    .name = given ? given->name : absent_if_empty (name),
    .lock = files->lock,
    .parameter = depth <= config.nr_backing ? "qcow2ext-backing-file" : NULL,
  };
  int r;

  *store = NULL;
  files->nr_asked++;
  if (q.name == NULL || (given && strcmp (q.name, "none") == 0))
    return 0;
  files->nr_backing++;
  if ((r = backing_format (of, depth, format, as)) < 0)
    return r;
  if (given && given->is_nbd)
    r = open_backing_nbd (files, q.name, store, as);
  else
    r = open_backing_file (files, &q, given, store);
  if (r == 0)
    r = check_format (of, depth, *store, *as);
  if (r < 0) {
    store_close (*store);
    *store = NULL;
  }
  return r;
}

int
named_check_layers (const struct named_files *files, const char *image)
{
  /* A layer on a server is not looked at before the server starts. */
  if (!files->connect)
    for (size_t i = 0; i < files->nr_backing && i < config.nr_backing; i++)
      if (config.backing[i].is_nbd)
        return 0;
  if (config.nr_backing > files->nr_asked) {
    report_error ("%s: qcow2ext-backing-file= is given for %zu layers, but "
                  "number %zu is raw, and has no backing file", image,
                  config.nr_backing, files->nr_asked);
    return -EINVAL;
  }
  /* One alone is for an image that may have a backing file. */
  if (config.nr_backing_formats > 1
      && config.nr_backing_formats > files->nr_backing) {
    report_error ("%s: qcow2ext-backing-format= is given for %zu layers, but "
                  "there are only %zu", image, config.nr_backing_formats,
                  files->nr_backing);
    return -EINVAL;
  }
  return 0;
}
