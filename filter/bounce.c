/* qcow2ext: memory for data on its way past the page cache.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "bounce.h"

void
bounce_pool_init (struct bounce_pool *pool, size_t size, size_t alignment)
{
  pthread_mutex_init (&pool->lock, NULL);
  pool->idle = NULL;
  pool->size = size;
  pool->alignment = alignment;
}

void
bounce_pool_destroy (struct bounce_pool *pool)
{
  void *buf;

  while ((buf = pool->idle) != NULL) {
    pool->idle = *(void **) buf;
    free (buf);
  }
  pthread_mutex_destroy (&pool->lock);
}

void *
bounce_take (struct bounce_pool *pool)
{
  void *buf;

  {
    LOCK_FOR_SCOPE (&pool->lock);
    buf = pool->idle;
    if (buf) {
      pool->idle = *(void **) buf;
      return buf;
    }
  }
  return posix_memalign (&buf, pool->alignment, pool->size) == 0 ? buf : NULL;
}

void
bounce_give (struct bounce_pool *pool, void *buf)
{
  LOCK_FOR_SCOPE (&pool->lock);
  *(void **) buf = pool->idle;
  pool->idle = buf;
}
