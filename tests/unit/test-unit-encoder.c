/* qcow2ext: what the encoder makes can be decoded by everybody.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * All cluster sizes and both types of compression, with data that tempts: long
 * distances, that nothing can be saved, that all can.  The judges are our own
 * decoder, with other data behind the result as in an image; for deflate, zlib
 * piece by piece, with the window that the format gives it; for zstd, its
 * streaming reader.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>

#include "check.h"
#include "data/decoder.h"
#include "data/encoder.h"
#include "disk/format.h"

#define THREADS 2

static uint64_t
next_random (uint64_t *seed)
{
  *seed ^= *seed << 13;
  *seed ^= *seed >> 7;
  *seed ^= *seed << 17;
  return *seed;
}

enum pattern {
  ZEROS,
  NOISE,                        /* cannot be compressed */
  WORDS,                        /* of 16 letters */
  TOO_FAR,                      /* noise that comes again behind the window */
  JUST_NEAR,                    /* and just within it */
  HALF,                         /* noise, then zeros */
  PATTERNS
};

static void
fill (enum pattern pattern, uint8_t *p, size_t size, uint64_t seed)
{
  const size_t period = pattern == TOO_FAR ? 4097 : 4096 - 262;

  for (size_t i = 0; i < size; i++)
    switch (pattern) {
    case ZEROS: p[i] = 0; break;
    case WORDS: p[i] = 'a' + next_random (&seed) % 16; break;
    case JUST_NEAR:
    case TOO_FAR:
      p[i] = i < period ? next_random (&seed) : p[i - period];
      break;
    case HALF: p[i] = i < size / 2 ? next_random (&seed) : 0; break;
    default: p[i] = next_random (&seed);
    }
}

/* Inflates in pieces, so that what lies further back than the window is not
 * in memory.
 */
static void
inflate_in_pieces (const void *packed, size_t size, const uint8_t *plain,
                   size_t plain_size)
{
  uint8_t piece[1000];
  z_stream z = { .next_in = (void *) packed, .avail_in = size };
  int r = Z_OK;

  CHECK (inflateInit2 (&z, -12) == Z_OK);
  for (size_t done = 0; done < plain_size || r != Z_STREAM_END;) {
    size_t n;

    z.next_out = piece;
    z.avail_out = sizeof piece;
    r = inflate (&z, Z_SYNC_FLUSH);
    CHECK (r == Z_OK || r == Z_STREAM_END);
    n = sizeof piece - z.avail_out;
    CHECK (n > 0 || r == Z_STREAM_END);
    CHECK (n <= plain_size - done);
    CHECK (memcmp (piece, plain + done, n) == 0);
    done += n;
  }
  CHECK (z.avail_in == 0);
  inflateEnd (&z);
}

static void
stream_zstd (const void *packed, size_t size, const uint8_t *plain,
             size_t plain_size, uint8_t *out)
{
  ZSTD_DCtx *zstd = ZSTD_createDCtx ();
  ZSTD_inBuffer in = { .src = packed, .size = size };
  ZSTD_outBuffer o = { .dst = out, .size = plain_size };

  CHECK (zstd);
  CHECK (ZSTD_decompressStream (zstd, &o, &in) == 0);
  CHECK (in.pos == size && o.pos == plain_size);
  CHECK (memcmp (out, plain, plain_size) == 0);
  ZSTD_freeDCtx (zstd);
}

static void
check_cluster (struct encoder *e, unsigned type, enum pattern pattern,
               unsigned bits)
{
  const size_t size = (size_t) 1 << bits, room = encoder_room (e);
  uint8_t *plain = malloc (size), *out = malloc (size);
  uint8_t *packed = malloc (room + 1 + 512);
  struct decoder *d = decoder_new ();
  uint64_t seed = 88172645463325252 + bits;
  ssize_t n;

  CHECK (plain && packed && out && d);
  fill (pattern, plain, size, seed);
  packed[room] = 0xa5;
  n = encoder_run (e, plain, packed);
  CHECK (packed[room] == 0xa5);
  CHECK (n >= 0 && (size_t) n <= room);

  if (pattern == NOISE)
    CHECK (n == 0);
  if (pattern == ZEROS || pattern == WORDS || pattern == HALF)
    CHECK (n > 0);
  /* With the window of the format, one of these can be compressed. */
  if (bits > 13 && type == QCOW2_COMPRESSION_ZLIB)
    CHECK ((n > 0) == (pattern != TOO_FAR && pattern != NOISE));
  if (n > 0) {
    for (size_t i = n; i < (size_t) n + 512; i++)
      packed[i] = next_random (&seed);
    CHECK (decoder_run (d, type, packed, n + 512, out, size) == 0);
    CHECK (memcmp (plain, out, size) == 0);
    if (type == QCOW2_COMPRESSION_ZSTD)
      stream_zstd (packed, n, plain, size, out);
    else
      inflate_in_pieces (packed, n, plain, size);
  }
  decoder_free (d);
  free (plain);
  free (packed);
  free (out);
}

struct job {
  struct encoder *encoder;
  unsigned type, bits;
};

static void *
check_patterns (void *opaque)
{
  const struct job *job = opaque;

  for (unsigned round = 0; round < 2; round++)
    for (enum pattern p = 0; p < PATTERNS; p++)
      check_cluster (job->encoder, job->type, p, job->bits);
  return NULL;
}

int
main (void)
{
  static const unsigned types[] = {
    QCOW2_COMPRESSION_ZLIB, QCOW2_COMPRESSION_ZSTD,
  };

  for (unsigned t = 0; t < 2; t++)
    for (unsigned bits = QCOW2_MIN_CLUSTER_BITS;
         bits <= QCOW2_MAX_CLUSTER_BITS; bits++) {
      struct job job = { .type = types[t], .bits = bits };
      pthread_t thread[THREADS];

      job.encoder = encoder_new (types[t], (size_t) 1 << bits);
      CHECK (job.encoder);
      for (unsigned i = 0; i < THREADS; i++)
        CHECK (pthread_create (&thread[i], NULL, check_patterns, &job) == 0);
      for (unsigned i = 0; i < THREADS; i++)
        pthread_join (thread[i], NULL);
      encoder_free (job.encoder);
    }
  encoder_free (NULL);
  return EXIT_SUCCESS;
}
