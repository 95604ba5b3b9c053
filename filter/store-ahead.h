/* qcow2ext: a store in front of one that is far away, which reads ahead.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_AHEAD_H
#define QCOW2EXT_STORE_AHEAD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/store.h"

/* Takes inner, which must let any thread use it.  memory (bytes) is the most
 * that is kept of what was read ahead; 0: nothing is.  serial: inner does one
 * request after another.  Returns the store, inner if nothing is to be read
 * ahead; or NULL with errno set, having closed inner.
 */
struct store *store_ahead_new (struct store *inner, size_t memory,
                               bool serial);

#endif /* QCOW2EXT_STORE_AHEAD_H */
