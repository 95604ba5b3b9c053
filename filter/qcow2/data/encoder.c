/* qcow2ext: compression of one cluster.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A context takes longer to make than a small cluster takes to compress.  So
 * contexts wait in a list for the next thread that wants one: there are as
 * many as threads that ever compressed at once.
 *
 * Deflate has a window of 4 KiB, says the format, and readers that inflate
 * piece by piece rely on that.  libdeflate always looks back 32 KiB, so it is
 * only for clusters that are no larger than the window.
 */

#include "build-config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

#include "base/cleanup.h"
#include "data/encoder.h"
#include "disk/format.h"

#define WINDOW_BITS 12
#define WINDOW_SIZE (1 << WINDOW_BITS)

/* What is best in the same time.  With so small a window, higher levels of
 * zlib gain half a percent and take a third longer; a larger memory level has
 * larger tables to clear for each cluster, and gains nothing.  Of zstd it is
 * the default level.
 */
#define ZLIB_LEVEL 5
#define ZLIB_MEMORY_LEVEL 8
#define LIBDEFLATE_LEVEL 5

/* One of these is not NULL. */
struct context {
  struct context *next;         /* while idle */
  z_stream *zlib;
  ZSTD_CCtx *zstd;
#ifdef HAVE_LIBDEFLATE
  struct libdeflate_compressor *libdeflate;
#endif
};

struct encoder {
  bool zstd;
  size_t cluster_size, room;    /* bytes */
  pthread_mutex_t lock;
  struct context *idle;         /* under lock */
};

struct encoder *
encoder_new (unsigned compression_type, size_t cluster_size)
{
  const size_t saving = cluster_size / 8 < QCOW2_SECTOR_SIZE
    ? cluster_size / 8 : QCOW2_SECTOR_SIZE;
  struct encoder *e = calloc (1, sizeof *e);

  if (e == NULL)
    return NULL;
  pthread_mutex_init (&e->lock, NULL);
  e->zstd = compression_type == QCOW2_COMPRESSION_ZSTD;
  e->cluster_size = cluster_size;
  e->room = cluster_size - saving;
  return e;
}

static void
free_context (struct context *c)
{
  if (c->zlib)
    deflateEnd (c->zlib);
  free (c->zlib);
  ZSTD_freeCCtx (c->zstd);
#ifdef HAVE_LIBDEFLATE
  if (c->libdeflate)
    libdeflate_free_compressor (c->libdeflate);
#endif
  free (c);
}

void
encoder_free (struct encoder *e)
{
  struct context *c;

  if (e == NULL)
    return;
  while ((c = e->idle) != NULL) {
    e->idle = c->next;
    free_context (c);
  }
  pthread_mutex_destroy (&e->lock);
  free (e);
}

size_t
encoder_room (const struct encoder *e)
{
  return e->room;
}

static z_stream *
new_zlib (void)
{
  z_stream *z = calloc (1, sizeof *z);

  if (z && deflateInit2 (z, ZLIB_LEVEL, Z_DEFLATED, -WINDOW_BITS,
                         ZLIB_MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
    free (z);
    return NULL;
  }
  return z;
}

static struct context *
new_context (const struct encoder *e)
{
  struct context *c = calloc (1, sizeof *c);

  if (c == NULL)
    return NULL;
  if (e->zstd)
    c->zstd = ZSTD_createCCtx ();
#ifdef HAVE_LIBDEFLATE
  else if (e->cluster_size <= WINDOW_SIZE)
    c->libdeflate = libdeflate_alloc_compressor (LIBDEFLATE_LEVEL);
#endif
  else
    c->zlib = new_zlib ();

  if (c->zlib || c->zstd)
    return c;
#ifdef HAVE_LIBDEFLATE
  if (c->libdeflate)
    return c;
#endif
  free_context (c);
  return NULL;
}

static struct context *
borrow_context (struct encoder *e)
{
  {
    LOCK_FOR_SCOPE (&e->lock);
    struct context *c = e->idle;

    if (c) {
      e->idle = c->next;
      return c;
    }
  }
  return new_context (e);
}

static void
return_context (struct encoder *e, struct context *c)
{
  LOCK_FOR_SCOPE (&e->lock);
  c->next = e->idle;
  e->idle = c;
}

static size_t
run_zlib (z_stream *z, const void *cluster, size_t size, void *out,
          size_t room)
{
  if (deflateReset (z) != Z_OK)
    return 0;
  z->next_in = (void *) cluster;
  z->avail_in = size;
  z->next_out = out;
  z->avail_out = room;
  return deflate (z, Z_FINISH) == Z_STREAM_END ? room - z->avail_out : 0;
}

/* The frame says how large the cluster is. */
static ssize_t
run_zstd (ZSTD_CCtx *zstd, const void *cluster, size_t size, void *out,
          size_t room)
{
  const size_t r = ZSTD_compress2 (zstd, out, room, cluster, size);

  if (!ZSTD_isError (r))
    return r;
  /* Tables are allocated when the first cluster is compressed. */
  return ZSTD_getErrorCode (r) == ZSTD_error_memory_allocation ? -ENOMEM : 0;
}

ssize_t
encoder_run (struct encoder *e, const void *cluster, void *out)
{
  struct context *c = borrow_context (e);
  ssize_t r;

  if (c == NULL)
    return -ENOMEM;
#ifdef HAVE_LIBDEFLATE
  if (c->libdeflate)
    r = libdeflate_deflate_compress (c->libdeflate, cluster, e->cluster_size,
                                     out, e->room);
  else
#endif
  if (c->zlib)
    r = run_zlib (c->zlib, cluster, e->cluster_size, out, e->room);
  else
    r = run_zstd (c->zstd, cluster, e->cluster_size, out, e->room);
  return_context (e, c);
  return r;
}
