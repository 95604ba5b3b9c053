/* qcow2ext: exports that are open, and the connections to them.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_SESSIONS_H
#define QCOW2EXT_SESSIONS_H

#include <pthread.h>
#include <stdbool.h>

#include <nbdkit-filter.h>

#include "served-image.h"

/* An export that somebody has open: an image, or one of its snapshots. */
struct session {
  struct session *next;
  struct served_image *served;
  char *snapshot;               /* ID or name; NULL: the live disk */
  unsigned users;
  struct open_image open;
  char *description;
};

/* A connection. */
struct handle {
  struct handle *next, **prev;
  struct session *session;      /* NULL: detached */
  bool readonly;                /* the client must not write */
  pthread_rwlock_t leaving;     /* for writing: while session changes */
};

/* Finds the session of an export, or opens one.  Returns NULL (reported) if
 * that fails.  session_put gives it back; the last one finds everything as it
 * should be on disk when that returns, and the files unlocked.
 */
struct session *session_get (struct served_image *served,
                             nbdkit_backend *backend, bool writable,
                             const char *snapshot);
void session_put (struct session *s);

/* A handle is attached to its session by handle_open, and detached by
 * handle_detach, which may be called again.  handle_close frees it.
 * handles_free frees those that nbdkit has not closed when the server ends.
 */
struct handle *handle_open (struct served_image *served,
                            nbdkit_backend *backend, bool readonly,
                            const char *snapshot);
void handle_detach (struct handle *h);
void handle_close (struct handle *h);
void handles_free (void);

/* Brings all sessions to their final state on disk; with idle, those that
 * have not changed since the last call with it.
 */
void sessions_settle (bool idle);

#endif /* QCOW2EXT_SESSIONS_H */
