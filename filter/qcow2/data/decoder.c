/* qcow2ext: decompression of one cluster.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The descriptor of a compressed cluster says only how many sectors to look
 * at, so data is followed by bytes that are not its own, and the size of the
 * result (a cluster) is what ends it.  Success is "the cluster is full".
 *
 * zlib is the reference for deflate: some writers leave out the final block,
 * which libdeflate refuses.  libdeflate goes first because it is faster.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

#include "data/decoder.h"
#include "disk/format.h"

/* The most that a frame may ask to be remembered, as a power of two: more
 * than any cluster, much less than zstd's own limit of 128 MiB.
 */
#define ZSTD_WINDOW_LOG 22

/* Contexts are made when they are first needed and then kept. */
struct decoder {
  z_stream *zlib;
  ZSTD_DCtx *zstd;
#ifdef HAVE_LIBDEFLATE
  struct libdeflate_decompressor *libdeflate;
#endif
};

struct decoder *
decoder_new (void)
{
  return calloc (1, sizeof (struct decoder));
}

void
decoder_free (struct decoder *d)
{
  if (d == NULL)
    return;
  if (d->zlib)
    inflateEnd (d->zlib);
  free (d->zlib);
  ZSTD_freeDCtx (d->zstd);
#ifdef HAVE_LIBDEFLATE
  if (d->libdeflate)
    libdeflate_free_decompressor (d->libdeflate);
#endif
  free (d);
}

static int
run_zlib (struct decoder *d, const void *data, size_t size, void *out,
          size_t out_size)
{
  int r;

  if (d->zlib == NULL) {
    d->zlib = calloc (1, sizeof *d->zlib);
    if (d->zlib == NULL)
      return -ENOMEM;
    /* Raw deflate.  Writers use a window of 4 KiB; a larger one costs little
     * and reads everything.
     */
    if (inflateInit2 (d->zlib, -MAX_WBITS) != Z_OK) {
      free (d->zlib);
      d->zlib = NULL;
      return -ENOMEM;
    }
  }
  else if (inflateReset (d->zlib) != Z_OK)
    return -EIO;

  d->zlib->next_in = (void *) data;
  d->zlib->avail_in = size;
  d->zlib->next_out = out;
  d->zlib->avail_out = out_size;
  r = inflate (d->zlib, Z_FINISH);
  if ((r == Z_STREAM_END || r == Z_BUF_ERROR) && d->zlib->avail_out == 0)
    return 0;
  return -EIO;
}

static int
run_deflate (struct decoder *d, const void *data, size_t size, void *out,
             size_t out_size)
{
#ifdef HAVE_LIBDEFLATE
  if (d->libdeflate == NULL)
    d->libdeflate = libdeflate_alloc_decompressor ();
  /* Without room for the actual size it succeeds only if all is filled. */
  if (d->libdeflate
      && libdeflate_deflate_decompress (d->libdeflate, data, size,
                                        out, out_size, NULL)
         == LIBDEFLATE_SUCCESS)
    return 0;
#endif
  return run_zlib (d, data, size, out, out_size);
}

/* Decodes a frame that is cut short, or several frames in a row.  This is rare.
 * A context that was used before has larger buffers, so that it accepts more
 * of what is not sound: what an image reads as would depend on what was read
 * earlier.
 */
static int
run_zstd_stream (const void *data, size_t size, void *out, size_t out_size)
{
  ZSTD_inBuffer in = { .src = data, .size = size };
  ZSTD_outBuffer o = { .dst = out, .size = out_size };
  ZSTD_DCtx *zstd = ZSTD_createDCtx ();
  int result = 0;

  if (zstd == NULL)
    return -ENOMEM;
  ZSTD_DCtx_setParameter (zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
  while (result == 0 && o.pos < o.size) {
    const size_t in_before = in.pos, out_before = o.pos;
    const size_t r = ZSTD_decompressStream (zstd, &o, &in);

    if (ZSTD_isError (r) || (in.pos == in_before && o.pos == out_before))
      result = -EIO;
  }
  ZSTD_freeDCtx (zstd);
  return result;
}

static int
run_zstd (struct decoder *d, const void *data, size_t size, void *out,
          size_t out_size)
{
  size_t frame;

  if (d->zstd == NULL) {
    d->zstd = ZSTD_createDCtx ();
    if (d->zstd == NULL)
      return -ENOMEM;
  }

  /* Decoding in one go needs the frame's exact size, and no window. */
  frame = ZSTD_findFrameCompressedSize (data, size);
  if (!ZSTD_isError (frame)
      && ZSTD_decompressDCtx (d->zstd, out, out_size, data, frame)
         == out_size)
    return 0;
  return run_zstd_stream (data, size, out, out_size);
}

int
decoder_run (struct decoder *d, unsigned compression_type, const void *data,
             size_t size, void *out, size_t out_size)
{
  if (compression_type == QCOW2_COMPRESSION_ZSTD)
    return run_zstd (d, data, size, out, out_size);
  return run_deflate (d, data, size, out, out_size);
}
