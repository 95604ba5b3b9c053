/* qcow2ext: exports that are open.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * All connections to an export share its session, and it ends with the last
 * of them, so that the next client reads everything anew.  nbdkit's own
 * per-connection contexts below us are not used: a session has one shared
 * context, inside its store.
 *
 *              first client                last client leaves, idle look
 *   (none) --------------> opening --> open ------------------> settling
 *                             |         ^                          |  |
 *                      failed |         +--------------------------+  |
 *                             v           a client has joined,        |
 *                           gone <-- closing <------------------------+
 *                                                all is on disk, or lost
 *
 * Opening, settling (commits, flushes) and closing take time, and are done
 * without the lock by one thread, which has set the state.  A new client joins
 * a session that is open or settling.  It waits only for an opening or a
 * closing, and only for those of its own export.
 *
 * If there is no space to settle, the session is open and has no users: what
 * was written is in memory, the files stay locked, the next client joins, and
 * each idle look tries again.  Every other failure loses changes, and the
 * image is marked as failed before the session goes (see failures.c).
 *
 * served->lock guards an image's list of sessions and their states.  No other
 * lock is taken while it is held, and no I/O happens, but for locking the image
 * file.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "describe.h"
#include "sessions.h"

static void
set_state (struct session *s, enum session_state state)
{
  s->state = state;
  pthread_cond_broadcast (&s->changed);
}

static void
free_if_gone (struct session *s)
{
  if (s->state != SESSION_GONE || s->waiting)
    return;
  pthread_cond_destroy (&s->changed);
  free ((char *) s->export.name);
  free (s->description);
  free (s);
}

/* Waits for a change of state, and returns the new one.  If that is
 * SESSION_GONE, the session must not be touched any more.
 */
static enum session_state
wait_for_change (struct session *s)
{
  enum session_state state;

  s->waiting++;
  pthread_cond_wait (&s->changed, &s->served->lock);
  s->waiting--;
  state = s->state;
  free_if_gone (s);
  return state;
}

static bool
same_string (const char *a, const char *b)
{
  return a == b || (a && b && strcmp (a, b) == 0);
}

static struct session *
find (struct served_image *served, const struct export *export)
{
  struct session *s;

  for (s = served->sessions; s; s = s->next)
    if (s->export.kind == export->kind
        && same_string (s->export.name, export->name) && !s->outdated)
      break;
  return s;
}

/* The session of the disk, if clients have changed something in it. */
static const struct session *
find_changed_disk (struct served_image *served)
{
  static const struct export disk = { .kind = EXPORT_DISK };
  const struct session *s = find (served, &disk);

  return s && (s->state == SESSION_OPEN || s->state == SESSION_SETTLING)
    && !image_is_pristine (s->open.image) ? s : NULL;
}

/* What the sessions of bitmaps have read is not true any more. */
static void
outdate_bitmaps (struct served_image *served)
{
  for (struct session *s = served->sessions; s; s = s->next)
    s->outdated |= s->export.kind == EXPORT_BITMAP;
}

/* Is it a bitmap that is to record what is written? */
static bool
records (const struct image *image, const struct export *export)
{
  for (size_t i = 0; i < image_bitmaps (image); i++) {
    const struct image_bitmap b = image_bitmap (image, i);

    if (export->kind == EXPORT_BITMAP && strcmp (b.name, export->name) == 0)
      return b.enabled;
  }
  return false;
}

static struct session *
add (struct served_image *served, bool writable,
     const struct export *export)
{
  struct session *s = calloc (1, sizeof *s);

  if (s)
    s->export.kind = export->kind;
  if (s == NULL
      || (export->name && !(s->export.name = strdup (export->name)))) {
    nbdkit_error ("malloc: %m");
    free (s);
    return NULL;
  }
  pthread_cond_init (&s->changed, NULL);
  s->served = served;
  s->writable = writable;
  s->next = served->sessions;
  served->sessions = s;
  return s;
}

/* Locks the image file as its sessions need it. */
static int
lock_image (struct served_image *served)
{
  bool writing = false;

  for (const struct session *s = served->sessions; s; s = s->next)
    writing |= s->writable;
  if (served->sessions)
    return served_image_lock (served, writing);
  served_image_unlock (served);
  return 0;
}

/* Opens a session that was added.  Returns 0 or -1 (reported). */
static int
open_session (struct session *s, nbdkit_backend *backend)
{
  struct served_image *served = s->served;
  const bool writable = s->writable;
  int r;

  if (lock_image (served) < 0)
    return -1;
  pthread_mutex_unlock (&served->lock);
  r = served_image_open (served, backend, &s->export, writable, &s->open);
  if (r == 0)
    s->description = describe_export (s->open.image, &s->export);
  pthread_mutex_lock (&served->lock);
  if (r < 0)
    return r;
  /* If the image has refused to be written to, others may do so. */
  s->writable = image_is_writable (s->open.image);
  s->records = records (s->open.image, &s->export);
  return lock_image (served) < 0 ? -1 : 0;
}

/* Closes a session that nobody uses, and removes it. */
static void
close_session (struct session *s)
{
  struct served_image *served = s->served;
  struct session **p = &served->sessions;

  if (s == find_changed_disk (served))
    outdate_bitmaps (served);
  set_state (s, SESSION_CLOSING);
  pthread_mutex_unlock (&served->lock);
  served_image_close (&s->open);
  pthread_mutex_lock (&served->lock);

  while (*p != s)
    p = &(*p)->next;
  *p = s->next;
  lock_image (served);
  set_state (s, SESSION_GONE);
  free_if_gone (s);
}

static bool
is_want_of_space (int r)
{
  return r == -ENOSPC || r == -EDQUOT;
}

/* Settles a session that is open; the state is SESSION_SETTLING then. */
static int
settle (struct session *s, bool idle)
{
  const bool said = s->no_space;
  int r;

  set_state (s, SESSION_SETTLING);
  pthread_mutex_unlock (&s->served->lock);
  r = image_settle (s->open.image, idle);
  if (is_want_of_space (r) && !said)
    nbdkit_error ("%s: there is no space to bring the image to its final "
                  "state; it stays open and locked, and this is tried again "
                  "every few seconds",
                  s->served->path ? s->served->path : "the qcow2 image");
  pthread_mutex_lock (&s->served->lock);
  s->no_space = is_want_of_space (r);
  return r;
}

/* Settles a session that is open and that nobody uses, and closes it if all is
 * well, or if all is lost.  Returns whether it is gone.
 */
static bool
settle_and_close (struct session *s)
{
  unsigned joined;
  int r;

  /* What clients did that came meanwhile and are gone may not be settled.  In
   * the first round nothing of theirs is under way, in later ones it is, and they
   * wait for it.
   */
  s->ending = true;
  do {
    joined = s->joined;
    r = settle (s, false);
    s->ending = false;
  } while (s->users == 0
           && (r == -EBUSY
               || (s->joined != joined
                   && !image_is_unchanged (s->open.image))));

  if (s->users > 0 || is_want_of_space (r)) {
    set_state (s, SESSION_OPEN);
    return false;
  }
  if (r < 0 || image_has_failed (s->open.image))
    failures_add (&s->open.key);
  close_session (s);
  return true;
}

struct session *
session_get (struct served_image *served, nbdkit_backend *backend,
             bool writable, const struct export *export)
{
  struct session *s;

  LOCK_FOR_SCOPE (&served->lock);
  if (find_changed_disk (served))
    outdate_bitmaps (served);
  while ((s = find (served, export)) != NULL) {
    if (s->state == SESSION_OPEN || s->state == SESSION_SETTLING) {
      s->users++;
      s->joined++;
      return s;
    }
    wait_for_change (s);
  }
  s = add (served, writable && export->kind == EXPORT_DISK, export);
  if (s == NULL)
    return NULL;
  if (open_session (s, backend) == -1) {
    close_session (s);
    return NULL;
  }
  s->users++;
  set_state (s, SESSION_OPEN);
  return s;
}

bool
session_is_current (struct session *s, bool of_disk)
{
  LOCK_FOR_SCOPE (&s->served->lock);
  if (!s->outdated && find_changed_disk (s->served)) {
    report_error ("clients are changing the disk: %s through the export "
                  "bitmap:%s; connect to it anew when they have gone",
                  s->records ? "nothing is shown" : "nothing can be read",
                  s->export.name);
    outdate_bitmaps (s->served);
  }
  return !s->outdated || (!of_disk && !s->records);
}

void
session_put (struct session *s)
{
  LOCK_FOR_SCOPE (&s->served->lock);
  s->users--;
  while (s->users == 0) {
    if (s->state == SESSION_OPEN) {
      settle_and_close (s);
      return;
    }
    /* The last but one to leave is at it, and all is his. */
    if (s->state == SESSION_SETTLING && s->ending
        && image_is_unchanged (s->open.image))
      return;
    if (wait_for_change (s) == SESSION_GONE)
      return;
  }
}

void
sessions_look (struct served_image *served)
{
  LOCK_FOR_SCOPE (&served->lock);
  for (struct session *s = served->sessions; s; s = s->next) {
    if (s->state != SESSION_OPEN)
      continue;                 /* another thread has it in hand */
    if (s->users == 0) {
      if (settle_and_close (s))
        return;                 /* the others: next time */
    }
    else {
      settle (s, true);
      set_state (s, SESSION_OPEN); /* a client that has left waits for it */
    }
  }
}

void
sessions_end (struct served_image *served)
{
  struct session *s;

  LOCK_FOR_SCOPE (&served->lock);
  s = served->sessions;
  while (s) {
    if (s->state == SESSION_OPEN) {
      const int r = settle (s, false);

      if (is_want_of_space (r))
        nbdkit_error ("%s: what was written since the last flush, and dirty "
                      "bitmaps, may not be on disk: %s; the image is sound",
                      served->path ? served->path : "the qcow2 image",
                      strerror (-r));
      /* Stores have threads, which must not outlive the filter. */
      set_state (s, SESSION_OPEN);
      if (s->users > 0)
        s = s->next;
      else {
        close_session (s);
        s = served->sessions;
      }
    }
    else if (wait_for_change (s) == SESSION_GONE)
      s = served->sessions;
  }
}
