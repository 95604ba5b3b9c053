/* qcow2ext: memory for data on its way past the page cache.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Aligned memory that is allocated for each request by many threads leaves the
 * allocator with gaps that it cannot use: a server grew to 900 MiB.  So buffers
 * wait here for the next request: there are as many as there ever were requests
 * under way at once.
 */

#ifndef QCOW2EXT_BOUNCE_H
#define QCOW2EXT_BOUNCE_H

#include <pthread.h>
#include <stddef.h>

struct bounce_pool {
  pthread_mutex_t lock;         /* guards idle; never held during I/O */
  void *idle;                   /* each begins with where the next one is */
  size_t size, alignment;       /* of each buffer, bytes */
};

void bounce_pool_init (struct bounce_pool *pool, size_t size,
                       size_t alignment);
void bounce_pool_destroy (struct bounce_pool *pool);

/* Takes a buffer, to be given back; NULL if there is no memory. */
void *bounce_take (struct bounce_pool *pool);
void bounce_give (struct bounce_pool *pool, void *buf);

#endif /* QCOW2EXT_BOUNCE_H */
