/* qcow2ext: decoders that wait for the next thread that wants one.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "data/decoder-pool.h"
#include "data/decoder.h"

/* So many wait for the next thread; what hundreds of threads needed at once
 * would be megabytes for the rest of the server's life.
 */
#define MOST_IDLE 32

void
decoder_pool_init (struct decoder_pool *pool)
{
  pthread_mutex_init (&pool->lock, NULL);
  pool->idle = NULL;
  pool->nr_idle = 0;
}

static void
free_workspace (struct workspace *w)
{
  decoder_free (w->decoder);
  free (w->input);
  free (w);
}

void
decoder_pool_destroy (struct decoder_pool *pool)
{
  struct workspace *w;

  while ((w = pool->idle) != NULL) {
    pool->idle = w->next;
    free_workspace (w);
  }
  pthread_mutex_destroy (&pool->lock);
}

static struct workspace *
new_workspace (void)
{
  struct workspace *w = calloc (1, sizeof *w);

  if (w == NULL)
    return NULL;
  w->decoder = decoder_new ();
  if (w->decoder == NULL) {
    free (w);
    return NULL;
  }
  return w;
}

struct workspace *
decoder_pool_borrow (struct decoder_pool *pool, size_t input_size)
{
  struct workspace *w;

  {
    LOCK_FOR_SCOPE (&pool->lock);
    w = pool->idle;
    if (w) {
      pool->idle = w->next;
      pool->nr_idle--;
    }
  }
  if (w == NULL && (w = new_workspace ()) == NULL)
    return NULL;
  if (w->input_size < input_size) {
    free (w->input);
    w->input = malloc (input_size);
    w->input_size = w->input ? input_size : 0;
  }
  return w;
}

void
decoder_pool_return (struct decoder_pool *pool, struct workspace *w)
{
  {
    LOCK_FOR_SCOPE (&pool->lock);
    if (pool->nr_idle < MOST_IDLE) {
      pool->nr_idle++;
      w->next = pool->idle;
      pool->idle = w;
      return;
    }
  }
  free_workspace (w);
}
