/* qcow2ext: an image that this server serves.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * What is here belongs to one image file and outlives its clients: where it
 * is, its lock, what was found out about it.  A server has one such image
 * today; nothing outside served_image_get assumes that.
 *
 * A failure outlives the clients, too.  After a flush that failed, the page
 * cache holds what the disk does not, and another flush succeeds.  A client
 * that connects then would be told that all is well.  So the image is not
 * written to any more by this server.  The next server drops the pages before
 * it reads them, and sees what is on the disk, as far as the kernel drops them.
 *
 * Lock: served->lock is held for what is done in memory, and for opening and
 * locking the image file; not while an image is opened, settled or closed.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "config.h"
#include "encryption.h"
#include "disk/format.h"
#include "image-lock.h"
#include "served-image.h"
#include "store-file.h"
#include "store-open.h"
#include "store-switch.h"

struct served_image *
served_image_get (void)
{
  static struct served_image the_one = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .lock_fd = -1,
  };

  the_one.path = config.image_path;
  return &the_one;
}

/* Is this the file behind the plugin's fd=?  Its path may lead to another one
 * by now.
 */
static bool
same_as_fd (const struct stat *st)
{
  struct file_id id, expected;
  struct stat st_fd;

  if (fstat (config.image_fd, &st_fd) == -1)
    return false;
  id = file_id_of (st);
  expected = file_id_of (&st_fd);
  return file_id_equal (&id, &expected);
}

/* Opens the image file itself, if it is there and something we can open; for
 * writing, if that is wanted and allowed.  Returns -1 if not: nothing is
 * wrong with that.
 */
static int
open_local (const struct served_image *served, bool writable, struct stat *st)
{
  const int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  int fd = -1;

  if (served->path == NULL || stat (served->path, st) == -1
      || (!S_ISREG (st->st_mode) && !S_ISBLK (st->st_mode)))
    return -1;
  if (writable)
    fd = open (served->path, O_RDWR | flags);
  if (fd == -1)
    fd = open (served->path, O_RDONLY | flags);
  if (fd == -1) {
    /* With file= the plugin cannot open it either, and says so. */
    if (config.image_fd != -1)
      nbdkit_error ("%s: the file of fd= cannot be opened a second time, so "
                    "it is treated as one that is not local: %m",
                    served->path);
    return -1;
  }
  if (fstat (fd, st) == -1
      || (config.image_fd != -1 && !same_as_fd (st))) {
    close (fd);
    return -1;
  }
  return fd;
}

static struct image_key
key_of (int fd, const struct stat *st)
{
  struct image_key key = { .is_known = fd != -1 };

  if (fd != -1) {
    key.id = file_id_of (st);
    if (ioctl (fd, FS_IOC_GETVERSION, &key.generation) == -1)
      key.generation = 0;
  }
  return key;
}

static bool
same_key (const struct image_key *a, const struct image_key *b)
{
  return a->is_known == b->is_known && file_id_equal (&a->id, &b->id)
    && a->generation == b->generation;
}

static bool
has_failed (struct served_image *served, const struct image_key *key)
{
  LOCK_FOR_SCOPE (&served->lock);
  for (size_t i = 0; i < served->nr_failed; i++)
    if (same_key (&served->failed[i], key))
      return true;
  return served->all_failed;
}

void
served_image_set_failed (struct served_image *served,
                         const struct image_key *key)
{
  struct image_key *failed;

  if (has_failed (served, key))
    return;
  LOCK_FOR_SCOPE (&served->lock);
  failed = realloc (served->failed,
                    (served->nr_failed + 1) * sizeof *failed);
  if (failed == NULL) {
    served->all_failed = true;
    return;
  }
  served->failed = failed;
  served->failed[served->nr_failed++] = *key;
}

/* Has this server not yet dropped what the page cache has of this file? */
static bool
is_first_use (struct served_image *served, const struct image_key *key)
{
  LOCK_FOR_SCOPE (&served->lock);
  if (same_key (&served->uncached, key))
    return false;
  served->uncached = *key;
  return true;
}

/* What an image is opened for. */
struct purpose {
  const char *snapshot;         /* ID or name; NULL: the live disk */
  bool writable;
  bool lock;
  bool serve;                   /* not only to see whether it is a good one */
  bool drop_cache;              /* of the data file, before it is read */
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
  const struct image_options options = {
    .env = &env,
    .write_env = purpose->write_env,
    .snapshot = purpose->snapshot,
    .l2_cache_size = config.l2_cache_size,
    .decoded_cache_size = config.decoded_cache_size,
    .bitmap = config.bitmap,
    .check = config.check && purpose->snapshot == NULL,
    .want_data_file = config.data_file != NULL,
    .want_encryption = encryption_has_passphrase (),
    .warn = !served->warned,
    .warn_bitmaps = !served->warned_bitmaps,
  };
  struct image *image = NULL;

  if (named_files_init (&files, path, st) < 0) {
    nbdkit_error ("malloc: %m");
    store_close (store);
    return NULL;
  }
  files.writable = purpose->writable;
  files.lock = purpose->lock;
  files.connect = purpose->serve;
  files.drop_cache = purpose->drop_cache;
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
  const int fd = open_local (served, false, &st);

  if (fd == -1)
    return 0;
  if (pread (fd, &magic, sizeof magic, 0) != sizeof magic
      || be32toh (magic) != QCOW2_MAGIC) {
    nbdkit_error ("warning: %s: this is no qcow2 image; clients are refused, "
                  "unless a filter below qcow2ext finds an image in it",
                  served->path);
    close (fd);
    return 0;
  }
  store = store_file_new (fd, served->path);
  if (store == NULL) {
    nbdkit_error ("%s: %m", served->path);
    return -1;
  }
  image = open_image (served, store, served->path, &st,
                      &(struct purpose) { .snapshot = config.snapshot });
  if (image == NULL)
    return -1;
  image_close (image);
  return 0;
}

int
served_image_open (struct served_image *served, nbdkit_backend *backend,
                   const char *snapshot, bool writable,
                   struct open_image *o)
{
  const char *name = served->path ? served->path : "the qcow2 image";
  struct stat st;
  const int fd = open_local (served, writable, &st);
  struct purpose purpose = { .snapshot = snapshot, .lock = config.lock,
                             .serve = true };
  struct store *store, *data;

  o->key = key_of (fd, &st);
  o->has_failed = has_failed (served, &o->key);
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

  store = store_switch_open (backend, name, !writable, config.serialize, fd);
  if (store == NULL)
    return -1;
  o->write_env = (struct image_write_env) {
    .refuse = store_switch_refuse,
    .prove = store_switch_prove,
    .opaque = store,
  };
  /* Once seen to be that file, it stays it, even if what a filter keeps for
   * itself (cow) differs from it by now.
   */
  if (store_switch_is_local (store))
    served->is_local = true;
  o->image = open_image (served, store,
                         fd != -1 && served->is_local ? served->path : NULL,
                         &st, &purpose);
  if (o->image == NULL)
    return -1;
  data = image_data_file (o->image);
  /* It may have refused to be written to: others may, then. */
  return config.lock && data && !config.data_is_nbd
    && store_file_lock (data, image_is_writable (o->image)) < 0 ? -1 : 0;
}

void
served_image_close (struct open_image *o)
{
  image_close (o->image);
  o->image = NULL;
}

/* The lock has a descriptor of its own, since the exports that are open must
 * not lock each other out.
 */
int
served_image_lock (struct served_image *served, bool writing)
{
  struct stat st;
  int r;

  if (!config.lock
      || (served->lock_fd != -1 && served->lock_writing == writing))
    return 0;
  if (served->lock_fd == -1)
    served->lock_fd = open_local (served, false, &st);
  if (served->lock_fd == -1)    /* not a local file, or not yet readable */
    return 0;
  r = image_lock (served->lock_fd, writing, served->path);
  served->lock_writing = r == 0 && writing;
  return r;
}

void
served_image_unlock (struct served_image *served)
{
  if (served->lock_fd != -1)
    close (served->lock_fd);
  served->lock_fd = -1;
}
