/* qcow2ext: connections to an NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_NBD_POOL_H
#define QCOW2EXT_NBD_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "nbd-request.h"

struct nbd_pool;

/* What the server says of the export. */
struct nbd_facts {
  uint64_t size;                /* bytes */
  uint32_t minimum, maximum;    /* of requests with data, bytes */
  bool readonly, multi_conn;
  bool can_flush, can_zero, can_fast_zero, can_trim, can_cache, can_extents;
};

/* What the pool tells its user, which does not call the pool then.  Changes that
 * were sent on different sides of a loss may have gone to different servers.
 */
struct nbd_events {
  uint64_t (*mark) (void *opaque); /* a connection is about to be used; what
                                      is returned is its mark */
  void (*lost) (void *opaque);  /* one was lost: the others take no more
                                   requests, and none is made anew yet */
  void *opaque;
};

/* Connects to a server.  The facts stay true, or else there is no connection;
 * one that is not written to may cease to allow several.  Returns NULL
 * (reported) if the server cannot be reached.
 */
struct nbd_pool *nbd_pool_open (const char *uri, bool writable,
                                const struct nbd_events *events,
                                struct nbd_facts *facts);

/* Waits some seconds for a connection.  Returns 0 or -EIO (reported). */
int nbd_pool_wait (struct nbd_pool *pool);

/* Does a request, in the caller's thread as far as that goes, and waits for
 * the answer.  If there is no connection, it waits some seconds for one; a
 * limited request does not wait.  Returns 0; -ENOTCONN if the connection was
 * lost meanwhile, so that nobody knows whether the request was done, or there
 * was none for a limited one; -EIO (reported) if there was none; or the
 * server's error.
 */
int nbd_pool_run (struct nbd_pool *pool, struct nbd_request *request);

/* Ends the connections; there must be no request under way. */
void nbd_pool_close (struct nbd_pool *pool);

#endif /* QCOW2EXT_NBD_POOL_H */
