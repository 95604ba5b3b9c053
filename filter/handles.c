/* qcow2ext: the connections of clients.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A handle is attached to its session by .open and detached by .finalize or
 * .close, whichever comes first: a client that goes during negotiation sees
 * no .finalize, a server that quits calls no .close.
 *
 * handles_lock guards the list of handles; no other lock is taken while it is
 * held.  A handle's lock keeps its session from going while a thread of a
 * filter above us uses it.
 */

#include "build-config.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "handles.h"
#include "images.h"

static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;
static struct handle *handles;

static void
handle_free (struct handle *h)
{
  pthread_rwlock_destroy (&h->leaving);
  free (h);
}

struct handle *
handle_open (struct served_image *served, nbdkit_backend *backend,
             bool readonly, const struct export *export)
{
  struct handle *h = calloc (1, sizeof *h);

  if (h == NULL) {
    nbdkit_error ("calloc: %m");
    images_put (served);
    return NULL;
  }
  pthread_rwlock_init (&h->leaving, NULL);
  h->readonly = readonly;
  h->session = session_get (served, backend, !readonly, export);
  if (h->session == NULL) {
    images_put (served);
    handle_free (h);
    return NULL;
  }

  h->image = h->session->open.image;
  h->is_bitmap = h->session->export.kind == EXPORT_BITMAP;

  LOCK_FOR_SCOPE (&handles_lock);
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
  struct served_image *served;
  struct session *s;

  pthread_rwlock_wrlock (&h->leaving);
  s = h->session;
  h->session = NULL;
  pthread_rwlock_unlock (&h->leaving);
  if (s == NULL)
    return;
  served = s->served;
  session_put (s);
  images_put (served);
}

void
handle_close (struct handle *h)
{
  handle_detach (h);
  {
    LOCK_FOR_SCOPE (&handles_lock);
    *h->prev = h->next;
    if (h->next)
      h->next->prev = h->prev;
  }
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
