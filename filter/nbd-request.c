/* qcow2ext: one request to an NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A request ends when libnbd frees its callback, which it does in every case:
 * answered, connection lost, handle closed.  Until then its buffers and the
 * struct itself belong to libnbd, so that nobody may leave before.  To give up
 * on a server that hangs is therefore to close the handle, which only the
 * link's thread does.
 */

#include "build-config.h"

#ifdef HAVE_LIBNBD

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "load-libnbd.h"
#include "nbd-connect.h"
#include "nbd-link.h"
#include "nbd-request.h"

/* Callbacks of libnbd. */

static int
on_completion (void *opaque, int *error)
{
  struct nbd_request *r = opaque;

  r->error = *error;
  return 1;                     /* libnbd forgets the command by itself */
}

static void
on_free (void *opaque)
{
  struct nbd_request *r = opaque;
  LOCK_FOR_SCOPE (&r->lock);

  r->done = true;
  pthread_cond_signal (&r->cond);
}

static int
on_extents (void *opaque, const char *context, uint64_t offset,
            uint32_t *entries, size_t nr_entries, int *error)
{
  struct nbd_request *r = opaque;
  struct nbd_extents *e = r->extents;

  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
    return 0;
  e->start = offset;
  e->nr = 0;
  for (size_t i = 0; i + 1 < nr_entries; i += 2) {
    const uint32_t length = entries[i], type = entries[i + 1] & 3;

    offset += length;
    if (e->nr && e->extent[e->nr - 1].type == type)
      e->extent[e->nr - 1].end = offset;
    else if (length && e->nr < NBD_MAX_EXTENTS) {
      e->extent[e->nr].end = offset;
      e->extent[e->nr++].type = type;
    }
    else if (length)
      break;
  }
  return 0;
}

static int64_t
start_command (struct nbd_handle *h, struct nbd_request *r)
{
  const nbd_completion_callback completion = {
    .callback = on_completion, .user_data = r, .free = on_free,
  };
  const nbd_extent_callback extents = {
    .callback = on_extents, .user_data = r,
  };

  switch (r->command) {
  case NBD_READ:
    return libnbd.aio_pread (h, r->buf, r->count, r->offset, completion,
                             r->flags);
  case NBD_WRITE:
    return libnbd.aio_pwrite (h, r->data, r->count, r->offset, completion,
                              r->flags);
  case NBD_ZERO:
    return libnbd.aio_zero (h, r->count, r->offset, completion, r->flags);
  case NBD_CACHE:
    return libnbd.aio_cache (h, r->count, r->offset, completion, r->flags);
  case NBD_EXTENTS:
    return libnbd.aio_block_status (h, r->count, r->offset, extents,
                                    completion, r->flags);
  case NBD_FLUSH:
    break;
  }
  return libnbd.aio_flush (h, completion, r->flags);
}

bool
nbd_request_send (struct nbd_link *l, struct nbd_request *r,
                  unsigned *generation)
{
  bool sent = true, wake;

  {
    LOCK_FOR_SCOPE (&l->issue);
    if (!nbd_link_is_usable (l))
      return false;
    *generation = l->generation;
    r->done = false;
    r->error = ENOTCONN;        /* if nobody says otherwise */
    l->in_flight++;
    if (start_command (l->h, r) == -1) {
      /* on_free has been called already, or will not be called. */
      r->done = true;
      r->error = libnbd.get_errno () ? libnbd.get_errno () : EIO;
      sent = nbd_is_alive (l->h);
    }
    /* The thread waits to receive; it knows of nothing else yet. */
    wake = libnbd.aio_get_direction (l->h) != LIBNBD_AIO_DIRECTION_READ;
  }
  if (wake)
    nbd_link_kick (l);
  if (!sent) {
    l->in_flight--;
    nbd_link_retire (l, *generation);
  }
  return sent;
}

int
nbd_request_wait (struct nbd_link *l, struct nbd_request *r)
{
  pthread_mutex_lock (&r->lock);
  while (!r->done)
    pthread_cond_wait (&r->cond, &r->lock);
  pthread_mutex_unlock (&r->lock);
  l->in_flight--;
  return r->error;
}

#endif /* HAVE_LIBNBD */
