/* qcow2ext: how much memory the tables of an image may take.
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
static size_t taken;

size_t
cache_share_take (void)
{
  const size_t size = config.l2_cache_size;
  const size_t least = size < LEAST ? size : LEAST;
  size_t left, share;

  if (!config.directory)
    return size;
  LOCK_FOR_SCOPE (&share_lock);
  left = size > taken ? size - taken : 0;
  share = left / PART > least ? left / PART : least;
  taken += share;
  return share;
}

void
cache_share_return (size_t share)
{
  if (!config.directory)
    return;
  LOCK_FOR_SCOPE (&share_lock);
  taken -= share;
}
