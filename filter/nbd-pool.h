/* qcow2ext: connections to an NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_NBD_POOL_H
#define QCOW2EXT_NBD_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct nbd_pool;

/* What the server says of the export. */
struct nbd_facts {
  uint64_t size;                /* bytes */
  uint32_t minimum, maximum;    /* of requests with data, bytes */
  bool readonly, multi_conn;
  bool can_flush, can_zero, can_fast_zero, can_trim, can_cache, can_extents;
};

/* The beginning of an answer about extents. */
#define NBD_MAX_EXTENTS 1024
struct nbd_extents {
  uint64_t start;
  unsigned nr;
  struct {
    uint64_t end;               /* and the start of the next one */
    uint32_t type;              /* as in base:allocation */
  } extent[NBD_MAX_EXTENTS];
};

enum nbd_command {
  NBD_READ, NBD_WRITE, NBD_ZERO, NBD_CACHE, NBD_EXTENTS, NBD_FLUSH,
};

struct nbd_request {
  enum nbd_command command;
  void *buf;                    /* for NBD_READ */
  const void *data;             /* for NBD_WRITE */
  uint64_t count, offset;
  uint32_t flags;               /* LIBNBD_CMD_FLAG_* */
  struct nbd_extents *extents;  /* for NBD_EXTENTS: filled in */
  bool again;                   /* it may be done more than once */
  bool limited;                 /* only on a connection that got a mark of */
  uint64_t max_mark;            /* at most this */

  /* The pool's own. */
  pthread_mutex_t lock;
  pthread_cond_t cond;
  bool done;
  int error;
};

/* What the pool tells its user, with no lock held. */
struct nbd_events {
  uint64_t (*mark) (void *opaque); /* a connection is about to be used; what
                                      is returned is its mark */
  void (*lost) (void *opaque);  /* one was lost, and has not been replaced */
  void *opaque;
};

/* Connects to a server.  The facts stay true, or else there is no connection.
 * Returns NULL (reported) if the server cannot be reached.
 */
struct nbd_pool *nbd_pool_open (const char *uri,
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
