/* qcow2ext: how much memory the caches of an image may take.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An image of a directory gets an eighth of what is left of the budget when it
 * is opened, and keeps that.  So the first ones get about as much as each of
 * eight would, and the budget never ends; the last ones get a little more than
 * nothing, which may exceed it: 64 KiB each.
 */

#include "build-config.h"

#include <pthread.h>

#include "base/cleanup.h"
#include "cache-share.h"
#include "config.h"

#define PART 8
#define LEAST 65536

static pthread_mutex_t share_lock = PTHREAD_MUTEX_INITIALIZER;
static struct cache_share taken;

/* What a cache of that size has left of it for the next one. */
static size_t
share_of (size_t size, size_t taken_of_it)
{
  const size_t left = size > taken_of_it ? size - taken_of_it : 0;
  const size_t least = size < LEAST ? size : LEAST;

  return left / PART > least ? left / PART : least;
}

struct cache_share
cache_share_take (void)
{
  struct cache_share share = { config.l2_cache_size,
                               config.decoded_cache_size };

  if (!config.directory)
    return share;
  LOCK_FOR_SCOPE (&share_lock);
  share.l2 = share_of (config.l2_cache_size, taken.l2);
  share.decoded = share_of (config.decoded_cache_size, taken.decoded);
  taken.l2 += share.l2;
  taken.decoded += share.decoded;
  return share;
}

void
cache_share_return (struct cache_share *share)
{
  if (config.directory) {
    LOCK_FOR_SCOPE (&share_lock);
    taken.l2 -= share->l2;
    taken.decoded -= share->decoded;
  }
  *share = (struct cache_share) { 0, 0 };
}
