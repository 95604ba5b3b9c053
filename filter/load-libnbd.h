/* qcow2ext: libnbd, if it is needed.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * libnbd brings a dozen libraries along, for TLS and XML, which cost more time
 * and memory than opening an image does.  So it is not linked with but loaded
 * when the operator names an NBD server, and called through this table.
 */

#ifndef QCOW2EXT_LOAD_LIBNBD_H
#define QCOW2EXT_LOAD_LIBNBD_H

#ifdef HAVE_LIBNBD

#include <libnbd.h>

#define LIBNBD_FUNCTIONS(f)                                             \
  f (add_meta_context) f (aio_block_status) f (aio_cache)               \
  f (aio_connect_uri) f (aio_disconnect) f (aio_flush)                  \
  f (aio_get_direction) f (aio_get_fd) f (aio_is_closed)                \
  f (aio_is_dead) f (aio_is_processing) f (aio_is_ready)                \
  f (aio_notify_read) f (aio_notify_write) f (aio_pread)                \
  f (aio_pwrite) f (aio_zero) f (can_cache) f (can_fast_zero)           \
  f (can_flush) f (can_meta_context) f (can_multi_conn) f (can_trim)    \
  f (can_zero) f (close) f (create) f (get_block_size) f (get_errno)    \
  f (get_error) f (get_size) f (is_read_only)                           \
  f (set_uri_allow_local_file)

struct libnbd {
#define POINTER(name) __typeof__ (nbd_##name) *name;
  LIBNBD_FUNCTIONS (POINTER)
#undef POINTER
};

extern struct libnbd libnbd;

/* Fills in the table; before there are threads.  Returns 0, or -1 (reported)
 * if the library is not there or is too old.
 */
int load_libnbd (void);

#endif /* HAVE_LIBNBD */

#endif /* QCOW2EXT_LOAD_LIBNBD_H */
