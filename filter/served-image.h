/* qcow2ext: an image that this server serves.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_SERVED_IMAGE_H
#define QCOW2EXT_SERVED_IMAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include <nbdkit-filter.h>

#include "cache-share.h"
#include "export-name.h"
#include "failures.h"
#include "image/image.h"
#include "store-file.h"

struct session;

/* The lock of a file for all exports of an image. */
struct file_lock {
  char *name;                   /* of the file, for messages */
  int fd;                       /* that holds it; -1: none */
  bool held;
  bool writing;                 /* it is that of a writer */
};

/* One image file, as long as the server runs, whether a client is connected
 * or not.
 */
struct served_image {
  const char *path;             /* absolute; NULL: not a local file */
  char *name;                   /* in the directory; NULL: it is not in one */
  atomic_bool refused;          /* filters below keep or change what is
                                   written; with a directory only */
  atomic_bool is_local;         /* what lies below us was seen to be a file
                                   at path */
  atomic_bool warned;           /* its state was reported once */
  atomic_bool warned_bitmaps;   /* likewise bitmaps that do not record */

  pthread_mutex_t lock;         /* guards all that follows */
  struct session *sessions;     /* the exports of it that are open */
  struct file_lock image_lock, data_lock;
  struct image_key uncached;    /* whose page cache was dropped */
  struct image_key seen_below;  /* of the file that was seen below us */

  /* --- Private to images.c, for those of a directory. --- */
  struct served_image *next;
  unsigned users;
};

/* What of an image is exported. */
struct export {
  enum export_kind kind;
  const char *name;             /* of the snapshot (or its ID) or bitmap */
};

/* An export of an image that is open. */
struct open_image {
  struct image *image;
  struct image_write_env write_env; /* for as long as the image is open */
  struct image_key key;
  size_t l2_cache_size;         /* bytes, of cache-share.h */
  bool has_failed;              /* changes were lost before it was opened:
                                   nothing is written, no flush succeeds */
};

/* What a client gets that asks for nothing in particular. */
struct export served_image_default_export (void);

/* Reads a local file that says that it is a qcow2 image, so that a bad one
 * fails the start of the server, where somebody looks.  Returns 0 or -1
 * (reported).
 */
int served_image_validate (struct served_image *served);

/* Opens an export of the image, through the layers below.  Its data file is
 * known then, but not yet locked.  The image may refuse to be written to
 * (image_is_writable).  Takes the lock for a moment.  Returns 0 or -1
 * (reported); served_image_close is due in either case.
 */
int served_image_open (struct served_image *served, nbdkit_backend *backend,
                       const struct export *export, bool writable,
                       struct open_image *o);
void served_image_close (struct open_image *o);

/* --- The caller holds served->lock. --- */

/* Takes the locks of the image file and of its data file for all exports that
 * are open in this server, or changes them: as a writer, or as a reader.
 * Returns 0 or -errno (reported).
 */
int served_image_lock (struct served_image *served, bool writing);
void served_image_unlock (struct served_image *served);
#endif /* QCOW2EXT_SERVED_IMAGE_H */
