/* qcow2ext: exports that are open.
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
  bool ending;                  /* settling for the first time since its last
                                   user left */
  bool writable;                /* the files are, or are to be, open so */
  bool no_space;                /* settling has failed for want of it */
  bool records;                 /* a bitmap that is enabled */
  bool outdated;                /* a bitmap, and the disk was changed after it
                                   was opened */
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

/* Brings the sessions of an image that have changed, but not since the last
 * call, to their final state on disk, and closes those that nobody uses.
 */
void sessions_look (struct served_image *served);

/* The server ends: brings all sessions to their final state on disk. */
void sessions_end (struct served_image *served);

#endif /* QCOW2EXT_SESSIONS_H */
