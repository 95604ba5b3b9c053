/* qcow2ext: exports that are open, and the connections to them.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_SESSIONS_H
#define QCOW2EXT_SESSIONS_H

#include <pthread.h>
#include <stdbool.h>

#include <nbdkit-filter.h>

#include "served-image.h"

/* See sessions.c. */
enum session_state {
  SESSION_OPENING,
  SESSION_OPEN,
  SESSION_SETTLING,
  SESSION_CLOSING,
  SESSION_GONE
};

/* An export that somebody has open.  Constant while it is in use, but for what
 * is below the line.
 */
struct session {
  struct served_image *served;
  struct export export;         /* its name is the session's own */
  struct open_image open;
  char *description;

  /* --- Private to sessions.c, under served->lock. --- */
  struct session *next;
  enum session_state state;
  pthread_cond_t changed;       /* the state has */
  unsigned waiting;             /* threads that wait for that */
  unsigned users;
  unsigned joined;              /* how many ever */
  bool ending;                  /* nobody used it when settling began */
  bool writable;                /* the files are, or are to be, open so */
  bool no_space;                /* settling has failed for want of it */
  bool records;                 /* a bitmap that is enabled */
  bool outdated;                /* a bitmap, and the disk was changed after it
                                   was opened */
};

/* A connection. */
struct handle {
  struct session *session;      /* NULL: detached */
  struct image *image;          /* the session's */
  bool is_bitmap;               /* to ask session_is_current */
  bool readonly;                /* the client must not write */
  pthread_rwlock_t leaving;     /* for writing: while session changes */
  struct handle *next, **prev;  /* private to sessions.c */
};

/* Finds the session of an export, or opens one.  Waits for nothing but the
 * opening or closing of this export.  Returns NULL (reported) on failure.
 */
struct session *session_get (struct served_image *served,
                             nbdkit_backend *backend, bool writable,
                             const struct export *export);

/* Is what the image of a bitmap's session has of the disk, or of a bitmap that
 * records, still true?
 */
bool session_is_current (struct session *s, bool of_disk);

/* Gives it back.  When that returns and nobody else uses the session, all is
 * as it should be on disk and the files are unlocked; unless there is no
 * space for that (reported): then the session stays, and idle looks try again.
 */
void session_put (struct session *s);

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

/* Brings the sessions of an image that have changed, but not since the last
 * call, to their final state on disk, and closes those that nobody uses.
 */
void sessions_look (struct served_image *served);

/* The server ends: brings all sessions to their final state on disk. */
void sessions_end (struct served_image *served);

#endif /* QCOW2EXT_SESSIONS_H */
