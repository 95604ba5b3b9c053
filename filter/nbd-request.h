/* qcow2ext: one request to an NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_NBD_REQUEST_H
#define QCOW2EXT_NBD_REQUEST_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct nbd_link;

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

  /* Of nbd-request.c. */
  pthread_mutex_t lock;
  pthread_cond_t cond;
  bool done;
  int error;
};

/* Sends a request on a link.  Returns false if the link turns out not to be
 * up: then nothing was sent.  Takes the link's issue lock, and sends as far as
 * the socket takes it without waiting.  *generation is for nbd_link_retire.
 */
bool nbd_request_send (struct nbd_link *l, struct nbd_request *r,
                       unsigned *generation);

/* Waits for the answer to what was sent.  Returns 0 or a positive errno. */
int nbd_request_wait (struct nbd_link *l, struct nbd_request *r);

#endif /* QCOW2EXT_NBD_REQUEST_H */
