/* qcow2ext: making a connection to an NBD server.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_NBD_CONNECT_H
#define QCOW2EXT_NBD_CONNECT_H

#include <stdbool.h>

struct nbd_handle;
struct nbd_link;

/* Connects, and agrees with the server on everything.  Waits some seconds for
 * it.  Returns NULL if it does not come to that, with the reason noted in the
 * pool; takes its lock for that.
 */
struct nbd_handle *nbd_connect (struct nbd_link *l);

bool nbd_is_alive (struct nbd_handle *h);

/* Waits, for timeout milliseconds at most, until there is something to do on
 * the connection, and does it.  Returns 1 if the server received or sent
 * something, 0, or -1 if the connection failed.
 */
int nbd_handle_events (struct nbd_link *l, struct nbd_handle *h, int timeout);

/* What libnbd's last error on this thread was. */
const char *nbd_last_error (void);

#endif /* QCOW2EXT_NBD_CONNECT_H */
