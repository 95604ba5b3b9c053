/* qcow2ext: a store over one that takes only whole blocks.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_STORE_BLOCKS_H
#define QCOW2EXT_STORE_BLOCKS_H

#include "base/store.h"
#include "block-lock.h"

/* What a store demands of requests, in bytes. */
struct block_limits {
  uint32_t minimum;             /* what they are a multiple of, but for the
                                   store's end; a power of two */
  uint32_t maximum;             /* of data; a multiple of minimum */
  uint64_t maximum_zero;        /* of zero and discard; likewise */
};

/* Makes a store of which any range can be read and written, by reading more
 * than was asked for and by splitting.  inner has a fixed size (but for
 * refresh_size), and gets only requests that lie within it and keep to the
 * limits; -ENOTSUP from its zero means that zeros have to be written.  Takes
 * inner, even if it fails.
 * Returns NULL with errno set.
 *
 * locks are shared by stores that lead to the same blocks; NULL: there is no
 * other.
 */
struct store *store_blocks_new (struct store *inner,
                                const struct block_limits *limits,
                                struct block_locks *locks);

#endif /* QCOW2EXT_STORE_BLOCKS_H */
