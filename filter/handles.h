/* qcow2ext: the connections of clients.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_HANDLES_H
#define QCOW2EXT_HANDLES_H

#include <pthread.h>
#include <stdbool.h>

#include <nbdkit-filter.h>

#include "sessions.h"

/* A connection. */
struct handle {
  struct session *session;      /* NULL: detached */
  struct image *image;          /* the session's */
  bool is_bitmap;               /* to ask session_is_current */
  bool readonly;                /* the client must not write */
  pthread_rwlock_t leaving;     /* for writing: while session changes */
  struct handle *next, **prev;  /* private to handles.c */
};

/* A handle is attached to its session by handle_open, which takes the use of
 * the image (see images.h), even if it fails; and detached by
 * handle_detach, which may be called again.  handle_close frees it.
 * handles_free frees those that nbdkit has not closed when the server ends.
 */
struct handle *handle_open (struct served_image *served,
                            nbdkit_backend *backend, bool readonly,
                            const struct export *export);
void handle_detach (struct handle *h);
void handle_close (struct handle *h);
void handles_free (void);

#endif /* QCOW2EXT_HANDLES_H */
