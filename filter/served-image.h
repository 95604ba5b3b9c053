/* qcow2ext: an image that this server serves.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_SERVED_IMAGE_H
#define QCOW2EXT_SERVED_IMAGE_H

#include <stdbool.h>

#include <nbdkit-filter.h>

#include "image/image.h"

struct session;

/* One image file, as long as the server runs, whether a client is connected
 * or not.
 */
struct served_image {
  const char *path;             /* absolute; NULL: not a local file */
  bool is_local;                /* what lies below us was seen to be the file
                                   at path */
  bool warned;                  /* its state was reported once */
  int lock_fd;                  /* of the file at path, while it is locked;
                                   -1: not */
  bool lock_writing;            /* the lock is that of a writer */
  struct session *sessions;     /* the exports of it that are open */
};

/* An image, or a snapshot in it, that is open. */
struct open_image {
  struct layer *image;
  struct image_write_env write_env; /* for as long as the image is open */
  bool writable;                /* asked for; the image may refuse */
};

/* The image that is served.  Known once the command line is. */
struct served_image *served_image_get (void);

/* Reads a local file that says that it is a qcow2 image, so that a bad one
 * fails the start of the server, where somebody looks.  Returns 0 or -1
 * (reported).
 */
int served_image_validate (struct served_image *served);

/* Opens the image, or a snapshot (an ID or a name) in it, through the layers
 * below and locks its data file.  o->writable says what for, and afterwards
 * what came of it.  Returns 0 or -1 (reported); served_image_close is due in
 * either case.
 */
int served_image_open (struct served_image *served, nbdkit_backend *backend,
                       const char *snapshot, struct open_image *o);
void served_image_close (struct open_image *o);

/* Takes the lock of the image file for all exports of it that are open in this
 * server, or changes it: as a writer, or as a reader.  Returns 0 or -errno
 * (reported).
 */
int served_image_lock (struct served_image *served, bool writing);
void served_image_unlock (struct served_image *served);

#endif /* QCOW2EXT_SERVED_IMAGE_H */
