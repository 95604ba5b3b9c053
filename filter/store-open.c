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
#include "image-lock.h"
#include "store-file.h"
#include "store-nbd.h"
#include "store-open.h"

/* Some programs write a name of no bytes where they mean none. */
static const char *
absent_if_empty (const char *name)
{
  return name && name[0] ? name : NULL;
}

/* Makes a store of an open file, if it is not in the chain already. */
static int
make_store (struct named_files *files, const struct name_request *q, int fd,
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
  r = named_files_add (files, st);
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
  struct name_request q = {
    .of = of, .what = "external data file",
    .parameter = depth == 0 ? "qcow2ext-data-file" : NULL,
    .writable = files->writable && depth == 0,
    .lock = files->lock && depth > 0, /* that of the image itself: later */
  };
  CLEANUP_FREE char *named = NULL, *path = NULL;
  struct stat st;
  int fd;

  q.name = name = absent_if_empty (name);
  if (depth == 0 && config.data_is_nbd)
    return open_nbd (files, store);
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
  return make_store (files, &q, fd, path ? path : q.name, &st, store);
}

/* The format of a backing file is never guessed: a raw guest could write a
 * qcow2 header onto its disk.
 */
static int
backing_format (const struct store *of, unsigned depth, const char *format,
                enum image_format *as)
{
  format = absent_if_empty (format);
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

int
named_open_backing (void *opaque, unsigned depth, const struct store *of,
                    const char *name, const char *format,
                    struct store **store, enum image_format *as)
{
  struct named_files *files = opaque;
  const bool trusted = depth == 0 && config.backing_file;
  struct name_request q = {
    .of = of, .what = "backing file",
    .name = trusted ? config.backing_file : absent_if_empty (name),
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
    fd = name_open_trusted (&q, &st);
  else
    fd = name_open_untrusted (files, &q, &named, &path, &st);
  if (fd < 0)
    return fd;
  r = make_store (files, &q, fd, path ? path : q.name, &st, store);
  if (r == 0)
    r = named_files_enter (files, named ? named : q.name, &st, trusted);
  if (r < 0) {
    store_close (*store);
    *store = NULL;
  }
  return r;
}
