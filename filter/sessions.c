/* qcow2ext: exports that are open, and the connections to them.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * All connections to an export share its session, and it ends with the last
 * of them, so that whoever connects next reads everything anew.  nbdkit's own
 * per-connection contexts below us are not used: a session has one shared
 * context, inside its store.
 *
 * A handle is attached to its session by .open and detached by .finalize or
 * .close, whichever comes first: a client that goes during negotiation sees
 * no .finalize, a server that quits calls no .close.
 *
 * Lock: sessions_lock guards the lists of sessions and handles.  It is held
 * while an image is opened or closed, so that the two never overlap; data
 * paths do not take it.  A handle's lock, taken after it, keeps its session
 * from going while a thread of a filter above us uses it.
 */

#include "build-config.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "config.h"
#include "sessions.h"

static pthread_mutex_t sessions_lock = PTHREAD_MUTEX_INITIALIZER;
static struct handle *handles;

static void
session_free (struct session *s)
{
  served_image_close (&s->open);
  free (s->snapshot);
  free (s->description);
  free (s);
}

static bool
same_string (const char *a, const char *b)
{
  return a == b || (a && b && strcmp (a, b) == 0);
}

/* Locks the image as its sessions need it. */
static int
lock_image (struct served_image *served)
{
  bool writing = false;

  for (const struct session *s = served->sessions; s; s = s->next)
    writing |= s->open.writable;
  if (served->sessions)
    return served_image_lock (served, writing);
  served_image_unlock (served);
  return 0;
}

static void
session_unlink (struct session *s)
{
  struct session **p = &s->served->sessions;

  while (*p != s)
    p = &(*p)->next;
  *p = s->next;
  lock_image (s->served);
}

static struct session *
get (struct served_image *served, nbdkit_backend *backend, bool writable,
     const char *snapshot)
{
  struct session *s;

  for (s = served->sessions; s; s = s->next)
    if (same_string (s->snapshot, snapshot))
      break;
  if (s == NULL) {
    s = calloc (1, sizeof *s);
    if (s == NULL || (snapshot && !(s->snapshot = strdup (snapshot)))) {
      nbdkit_error ("malloc: %m");
      free (s);
      return NULL;
    }
    s->served = served;
    s->open.writable = writable && snapshot == NULL && config.bitmap == NULL;
    s->next = served->sessions;
    served->sessions = s;
    if (lock_image (served) < 0
        || served_image_open (served, backend, snapshot, &s->open) == -1
        || lock_image (served) < 0) {
      session_unlink (s);
      session_free (s);
      return NULL;
    }
    s->description = image_describe (s->open.image);
  }
  s->users++;
  return s;
}

struct session *
session_get (struct served_image *served, nbdkit_backend *backend,
             bool writable, const char *snapshot)
{
  LOCK_FOR_SCOPE (&sessions_lock);
  return get (served, backend, writable, snapshot);
}

static void
put (struct session *s)
{
  if (--s->users > 0)
    return;
  image_settle (s->open.image, false);
  session_unlink (s);
  session_free (s);
}

void
session_put (struct session *s)
{
  LOCK_FOR_SCOPE (&sessions_lock);
  put (s);
}

void
sessions_settle (bool idle)
{
  LOCK_FOR_SCOPE (&sessions_lock);
  for (struct session *s = served_image_get ()->sessions; s; s = s->next)
    image_settle (s->open.image, idle);
}

static void
handle_free (struct handle *h)
{
  pthread_rwlock_destroy (&h->leaving);
  free (h);
}

struct handle *
handle_open (struct served_image *served, nbdkit_backend *backend,
             bool readonly, const char *snapshot)
{
  struct handle *h = calloc (1, sizeof *h);

  if (h == NULL) {
    nbdkit_error ("calloc: %m");
    return NULL;
  }
  pthread_rwlock_init (&h->leaving, NULL);
  h->readonly = readonly;

  LOCK_FOR_SCOPE (&sessions_lock);
  h->session = get (served, backend, !readonly, snapshot);
  if (h->session == NULL) {
    handle_free (h);
    return NULL;
  }
  h->next = handles;
  h->prev = &handles;
  if (h->next)
    h->next->prev = &h->next;
  handles = h;
  return h;
}

void
handle_detach (struct handle *h)
{
  struct session *s;

  LOCK_FOR_SCOPE (&sessions_lock);
  pthread_rwlock_wrlock (&h->leaving);
  s = h->session;
  h->session = NULL;
  pthread_rwlock_unlock (&h->leaving);
  if (s)
    put (s);
}

void
handle_close (struct handle *h)
{
  handle_detach (h);
  LOCK_FOR_SCOPE (&sessions_lock);
  *h->prev = h->next;
  if (h->next)
    h->next->prev = h->prev;
  handle_free (h);
}

void
handles_free (void)
{
  while (handles) {
    struct handle *h = handles;

    handles = h->next;
    handle_free (h);
  }
}
