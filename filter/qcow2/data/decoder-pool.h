/* qcow2ext: decoders that wait for the next thread that wants one.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_DECODER_POOL_H
#define QCOW2_DECODER_POOL_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct decoder;

/* A decoder, and room for what it reads. */
struct workspace {
  struct workspace *next;
  struct decoder *decoder;
  uint8_t *input;               /* NULL: there was no memory */
  size_t input_size;            /* bytes */
};

/* The lock guards the list. */
struct decoder_pool {
  pthread_mutex_t lock;
  struct workspace *idle;
  unsigned nr_idle;
};

void decoder_pool_init (struct decoder_pool *pool);
void decoder_pool_destroy (struct decoder_pool *pool);

/* Gives the caller a workspace with room for input_size bytes; NULL: out of
 * memory.  The caller gives it back.
 */
struct workspace *decoder_pool_borrow (struct decoder_pool *pool,
                                       size_t input_size);
void decoder_pool_return (struct decoder_pool *pool, struct workspace *w);

#endif /* QCOW2_DECODER_POOL_H */
