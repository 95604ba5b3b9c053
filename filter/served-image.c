/* qcow2ext: an image that this server serves.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * What is here belongs to one image file and outlives its clients: where it
 * is, its lock, what was found out about it.  Which images a server has is in
 * images.c.
 *
 * Lock: served->lock is held for what is done in memory, and for opening and
 * locking the image file; not while an image is opened, settled or closed.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "claims.h"
#include "config.h"
#include "disk/format.h"
#include "encryption.h"
#include "failures.h"
#include "image-file.h"
#include "image-lock.h"
#include "served-image.h"
#include "store-direct.h"
#include "store-file.h"
#include "store-open.h"
#include "store-switch.h"

/* Has this server not yet dropped what the page cache has of this file? */
static bool
is_first_use (struct served_image *served, const struct image_key *key)
{
  LOCK_FOR_SCOPE (&served->lock);
  if (image_key_equal (&served->uncached, key))
    return false;
  served->uncached = *key;
  return true;
}

/* What an image is opened for. */
struct purpose {
  struct export export;
  bool writable;
  bool lock;
  bool serve;                   /* not only to see whether it is a good one */
  bool drop_cache;              /* of the data file, before it is read */
  int own_fd;                   /* see struct named_files */
  size_t l2_cache_size;
  const struct image_write_env *write_env;
};

/* Opens the image in store and what it refers to.  path is that of the
 * image, if it is a local file.  Takes the store.
 */
static struct image *
open_image (struct served_image *served, struct store *store,
            const char *path, const struct stat *st,
            const struct purpose *purpose)
{
  struct named_files files;
  const struct image_env env = {
    .open_data = named_open_data,
    .open_backing = named_open_backing,
    .open_encrypted = encryption_open,
    .opaque = &files,
  };
  const char *const *bitmaps = config.nr_bitmaps
    ? (const char *const *) config.bitmaps : &purpose->export.name;
  const struct image_options options = {
    .env = &env,
    .write_env = purpose->write_env,
    .snapshot = purpose->export.kind == EXPORT_SNAPSHOT
                ? purpose->export.name : NULL,
    .l2_cache_size = purpose->l2_cache_size,
    .decoded = config.decoded,
    .bitmaps = bitmaps,
    .nr_bitmaps = purpose->export.kind != EXPORT_BITMAP ? 0
                  : config.nr_bitmaps ? config.nr_bitmaps : 1,
    .bitmap_chain = config.bitmap_chain,
    .any_bitmap = config.all_exports,
    .check = config.check
             && (purpose->export.kind == EXPORT_DISK
                 || config.nr_bitmaps),
    .write = config.write,
    .crew = config.crew,
    .waiters = config.waiters,
    .want_data_file = config.data_file != NULL,
    .want_encryption = encryption_has_passphrase () && !config.directory,
    .warn = !served->warned,
    .warn_bitmaps = !served->warned_bitmaps,
  };
  struct image *image = NULL;

  if (named_files_init (&files, path, st) < 0) {
    store_close (store);
    return NULL;
  }
  files.writable = purpose->writable;
  files.lock = purpose->lock;
  files.connect = purpose->serve;
  files.drop_cache = purpose->drop_cache;
  files.image_fd = purpose->own_fd;
  if (image_open (store, &options, &image) < 0)
    image = NULL;
  else if (named_check_layers (&files, path ? path : "the qcow2 image") < 0) {
    image_close (image);
    image = NULL;
  }
  named_files_free (&files);
  served->warned = true;
  if (image && image_is_writable (image))
    served->warned_bitmaps = true;
  return image;
}

struct export
served_image_default_export (void)
{
  if (config.snapshot)
    return (struct export) { EXPORT_SNAPSHOT, config.snapshot };
  if (config.nr_bitmaps)        /* all of them */
    return (struct export) { EXPORT_BITMAP, config.bitmaps[0] };
  return (struct export) { EXPORT_DISK, NULL };
}

/* Without the magic number the file may still be an image, under a filter
 * below us.
 */
int
served_image_validate (struct served_image *served)
{
  uint32_t magic;
  struct stat st;
  struct store *store;
  struct image *image;
  struct purpose purpose = { .export = served_image_default_export (),
                             .own_fd = -1 };
  const int fd = image_file_open (served, false, &st);

  if (fd == IMAGE_FILE_NOT_OPENED)
    return -1;
  if (fd == IMAGE_FILE_NOT_LOCAL) {
    /* A file that is there and that the plugin may not read, either.  Where
     * not even that can be seen, the plugin may mean another place.
     */
    if (served->path && config.image_fd == -1 && stat (served->path, &st) == 0
        && S_ISREG (st.st_mode) && access (served->path, R_OK) == -1
        && errno == EACCES) {
      nbdkit_error ("%s: the image cannot be opened: %m", served->path);
      return -1;
    }
    return 0;
  }
  if (pread (fd, &magic, sizeof magic, 0) != sizeof magic
      || be32toh (magic) != QCOW2_MAGIC) {
    nbdkit_error ("warning: %s: this is no qcow2 image; clients are refused, "
                  "unless a filter below qcow2ext finds an image in it",
                  served->path);
    close (fd);
    return 0;
  }
  if (store_open_own (fd, served->path, &store) < 0)
    return -1;
  purpose.l2_cache_size = cache_share_take ();
  image = open_image (served, store, served->path, &st, &purpose);
  cache_share_return (purpose.l2_cache_size);
  if (image == NULL)
    return -1;
  image_close (image);
  return 0;
}

/* The first export that is open has the descriptor that holds the lock, and the
 * others use it as well.
 */
static int
note_data_file (struct served_image *served, const struct store *data)
{
  struct file_lock *lock = &served->data_lock;
  struct stat st, st_locked;
  struct file_id id, id_locked;
  CLEANUP_CLOSE int fd = -1;

  if (data == NULL || config.data_is_nbd || !config.lock)
    return 0;
  LOCK_FOR_SCOPE (&served->lock);
  fd = store_file_dup (data);
  if (fd == -1 || fstat (fd, &st) == -1
      || (lock->fd != -1 && fstat (lock->fd, &st_locked) == -1)
      || (lock->fd == -1 && !(lock->name = strdup (data->name)))) {
    nbdkit_error ("%s: %m", data->name);
    return -1;
  }
  if (lock->fd == -1) {
    lock->fd = fd;
    fd = -1;
    return 0;
  }
  id = file_id_of (&st);
  id_locked = file_id_of (&st_locked);
  if (!file_id_equal (&id, &id_locked)) {
    nbdkit_error ("%s: the external data file has been replaced while clients "
                  "use the old one", data->name);
    return -1;
  }
  return 0;
}

/* Is it the file whose lock this server holds for all exports of the image?  The
 * path is followed each time that the file is opened, and may have led elsewhere
 * in between.  Without a lock that is known only of an image in a directory.
 */
static bool
is_locked_file (const struct served_image *served, const struct stat *st)
{
  const struct file_id id = file_id_of (st);
  struct file_id id_locked;
  struct stat st_locked;

  if (!served->name && !config.lock)
    return true;
  if (served->image_lock.fd != -1) {
    if (fstat (served->image_lock.fd, &st_locked) == -1) {
      nbdkit_error ("%s: %m", served->path);
      return false;
    }
    id_locked = file_id_of (&st_locked);
    if (file_id_equal (&id, &id_locked))
      return true;
  }
  nbdkit_error ("%s: the image has been replaced while clients use the old "
                "one, or just now; disconnect them, and connect again",
                served->path);
  return false;
}

/* May this descriptor of the image be used?  Takes it if not (reported). */
static bool
may_open (struct served_image *served, int fd, const struct stat *st)
{
  LOCK_FOR_SCOPE (&served->lock);
  if (served->refused)
    nbdkit_error ("%s: dir=: the image is not served: filters below qcow2ext "
                  "keep or change what is written", served->path);
  else if (is_locked_file (served, st))
    return true;
  close (fd);
  return false;
}

/* Has the plugin opened the file that is locked?  It has followed the path, which
 * leads there now as it did when the lock was taken.  With fd= it has not.
 */
static bool
is_locked_below (struct served_image *served)
{
  struct stat st;

  LOCK_FOR_SCOPE (&served->lock);
  if (served->name || config.image_fd != -1 || served->image_lock.fd == -1)
    return true;
  if (stat (served->path, &st) == -1) {
    nbdkit_error ("%s: %m", served->path);
    return false;
  }
  return is_locked_file (served, &st);
}

/* Is our own file, which has this key, what the store reads?  Once seen to be,
 * it stays that, even if what a filter keeps for itself (cow) differs from it
 * by now.  That says nothing of another file which has the name by now.
 */
static bool
is_local (struct served_image *served, const struct store *store,
          const struct image_key *key)
{
  LOCK_FOR_SCOPE (&served->lock);
  if (store_switch_is_local (store)) {
    served->is_local = true;
    served->seen_below = *key;
  }
  return key->is_known && image_key_equal (&served->seen_below, key);
}

int
served_image_open (struct served_image *served, nbdkit_backend *backend,
                   const struct export *export, bool writable,
                   struct open_image *o)
{
  const char *name = served->path ? served->path : "the qcow2 image";
  struct stat st;
  const int fd = image_file_open (served, writable, &st);
  struct purpose purpose = { .export = *export, .lock = config.lock,
                             .serve = true, .own_fd = -1 };
  CLEANUP_CLOSE int own_fd = -1;
  const struct export_below below = { served->name, &served->refused };
  struct store *store, *data;

  if (fd == IMAGE_FILE_NOT_OPENED
      || (fd != IMAGE_FILE_NOT_LOCAL && !may_open (served, fd, &st)))
    return -1;
  o->key = image_key_of (fd, &st);
  o->has_failed = failures_has (&o->key);
  if (o->has_failed) {
    nbdkit_error ("warning: %s: the image is served read-only: changes of it "
                  "were lost since this server was started; see what is "
                  "there, and start the server again", name);
    writable = false;
  }
  purpose.writable = writable;
  purpose.write_env = writable ? &o->write_env : NULL;
  if (writable && is_first_use (served, &o->key)) {
    purpose.drop_cache = true;
    if (fd != -1)
      posix_fadvise (fd, 0, 0, POSIX_FADV_DONTNEED);
  }

  /* Past the page cache, and in a directory, the image is read through our own
   * descriptor anyway.
   */
  if (fd != -1 && !config.direct && served->name == NULL) {
    purpose.own_fd = own_fd = fcntl (fd, F_DUPFD_CLOEXEC, 0);
    if (own_fd == -1) {
      nbdkit_error ("%s: %m", name);
      close (fd);
      return -1;
    }
  }
  purpose.l2_cache_size = o->l2_cache_size = cache_share_take ();
  store = store_switch_open (backend, served->name ? &below : NULL, name,
                             !writable, config.serialize, fd);
  if (store == NULL)
    return -1;
  if (!is_locked_below (served)) {
    store_close (store);
    return -1;
  }
  o->write_env = (struct image_write_env) {
    .refuse = store_switch_refuse,
    .prove = store_switch_prove,
    .opaque = store,
  };
  o->image = open_image (served, store,
                         is_local (served, store, &o->key) ? served->path
                         : NULL, &st, &purpose);
  if (o->image == NULL)
    return -1;
  data = image_data_file (o->image);
  return note_data_file (served, data ? store_direct_file (data) : NULL);
}

void
served_image_close (struct open_image *o)
{
  image_close (o->image);
  o->image = NULL;
  cache_share_return (o->l2_cache_size);
  o->l2_cache_size = 0;
}

/* Takes or changes one of the locks. */
static int
set_lock (struct file_lock *lock, bool writing)
{
  int r;

  if (lock->fd == -1 || (lock->held && lock->writing == writing))
    return 0;
  r = image_lock (lock->fd, writing, lock->name);
  lock->held = r == 0;
  lock->writing = writing;
  return r;
}

static void
drop_lock (struct file_lock *lock)
{
  if (lock->fd != -1)
    close (lock->fd);
  free (lock->name);
  *lock = (struct file_lock) { .fd = -1 };
}

/* Opens the file of a directory, for as long as any export of the image is
 * open, whether it is to be locked or not: see may_open.
 */
static int
claim_image (struct served_image *served)
{
  struct stat st;
  const int fd = image_file_open (served, false, &st);
  struct file_lock lock = { .fd = fd };
  int r;

  if (fd < 0)
    return -EIO;
  lock.name = strdup (served->path);
  if (lock.name == NULL)
    nbdkit_error ("strdup: %m");
  r = lock.name ? claims_take (served, served->path, &st) : -ENOMEM;
  if (r < 0)
    drop_lock (&lock);
  else
    served->image_lock = lock;
  return r;
}

/* The locks have descriptors of their own, since the exports that are open must
 * not lock each other out.
 */
int
served_image_lock (struct served_image *served, bool writing)
{
  struct file_lock *image = &served->image_lock;
  struct stat st;
  int r;

  if (served->name && image->fd == -1 && (r = claim_image (served)) < 0)
    return r;
  if (!config.lock)
    return 0;
  if (image->fd == -1) {        /* if it is a local file, and readable */
    const int fd = image_file_open (served, false, &st);

    if (fd == IMAGE_FILE_NOT_OPENED)
      return -EIO;
    image->fd = fd;             /* IMAGE_FILE_NOT_LOCAL is none */
    if (image->fd != -1 && !(image->name = strdup (served->path))) {
      drop_lock (image);
      nbdkit_error ("strdup: %m");
      return -ENOMEM;
    }
  }
  r = set_lock (image, writing);
  return r < 0 ? r : set_lock (&served->data_lock, writing);
}

void
served_image_unlock (struct served_image *served)
{
  drop_lock (&served->image_lock);
  drop_lock (&served->data_lock);
  claims_drop (served);
}
