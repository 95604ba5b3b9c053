/* qcow2ext: decoders, and how much memory a compressed cluster may ask for.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A zstd frame says how far it looks back.  If it is cut short, so that it has
 * to be decoded as a stream, so much is allocated.
 *
 * A decoder that is given back is the next one that is lent.
 */

#include "build-config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

#include "check.h"
#include "data/decoder-pool.h"
#include "data/decoder.h"
#include "disk/format.h"

#define CLUSTER 65536

/* Decodes a frame with a window of 2^log bytes, of which there is one block, a
 * byte that is repeated, but not the last one.
 */
static int
decode (unsigned log)
{
  static uint8_t out[CLUSTER];
  const uint32_t block = CLUSTER << 3 | 1 << 1;
  const uint8_t frame[] = {
    0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3,
    block & 0xff, block >> 8 & 0xff, block >> 16, log,
  };
  struct decoder *d = decoder_new ();
  int r;

  CHECK (d);
  r = decoder_run (d, QCOW2_COMPRESSION_ZSTD, frame, sizeof frame, out,
                   CLUSTER);
  for (size_t i = 0; r == 0 && i < CLUSTER; i++)
    CHECK (out[i] == log);
  decoder_free (d);
  return r;
}

/* A frame whose first block is half a cluster, and the second one is not there. */
static void
test_half (void)
{
  static uint8_t out[CLUSTER];
  const uint32_t block = (CLUSTER / 2) << 3 | 1 << 1;
  const uint8_t frame[] = {
    0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3,
    block & 0xff, block >> 8 & 0xff, block >> 16, 1,
  };
  struct decoder *d = decoder_new ();

  CHECK (d);
  CHECK (decoder_run (d, QCOW2_COMPRESSION_ZSTD, frame, sizeof frame, out,
                      CLUSTER) == -EIO);
  decoder_free (d);
}

/* Of several frames in a row the first may have nothing for the guest. */
static void
test_skippable (void)
{
  static uint8_t out[CLUSTER];
  const uint32_t block = CLUSTER << 3 | 1 << 1 | 1;
  const uint8_t frames[] = {
    0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4,
    0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3,
    block & 0xff, block >> 8 & 0xff, block >> 16, 5,
  };
  struct decoder *d = decoder_new ();

  CHECK (d);
  CHECK (decoder_run (d, QCOW2_COMPRESSION_ZSTD, frames, sizeof frames, out,
                      CLUSTER) == 0);
  for (size_t i = 0; i < CLUSTER; i++)
    CHECK (out[i] == 5);
  decoder_free (d);
}

/* zlib's context cannot be made if memory is short, and can later. */
static bool no_memory;

int __wrap_inflateInit2_ (z_streamp z, int bits, const char *version,
                          int size);
int __real_inflateInit2_ (z_streamp z, int bits, const char *version,
                          int size);

int
__wrap_inflateInit2_ (z_streamp z, int bits, const char *version, int size)
{
  return no_memory ? Z_MEM_ERROR
                   : __real_inflateInit2_ (z, bits, version, size);
}

static void
test_memory (void)
{
  /* As it is, in a block that is not the last one: zlib's matter. */
  uint8_t data[5 + 512] = { 0, 0x00, 0x02, 0xff, 0xfd }, out[512];
  struct decoder *d = decoder_new ();

  CHECK (d);
  memset (data + 5, 9, 512);
  no_memory = true;
  CHECK (decoder_run (d, 0, data, sizeof data, out,
                      512) == -ENOMEM);
  no_memory = false;
  for (unsigned i = 0; i < 2; i++) {
    CHECK (decoder_run (d, 0, data, sizeof data, out,
                        512) == 0);
    CHECK (memcmp (out, data + 5, 512) == 0);
  }
  decoder_free (d);
}

static void
test_pool (void)
{
  struct decoder_pool pool;
  struct workspace *a, *b;

  decoder_pool_init (&pool);
  a = decoder_pool_borrow (&pool, 1000);
  b = decoder_pool_borrow (&pool, 1000);
  CHECK (a && b && a != b && pool.nr_idle == 0);
  decoder_pool_return (&pool, a);
  decoder_pool_return (&pool, b);
  CHECK (pool.nr_idle == 2);
  CHECK (decoder_pool_borrow (&pool, 2000) == b && b->input_size >= 2000);
  CHECK (decoder_pool_borrow (&pool, 100) == a && pool.nr_idle == 0);
  decoder_pool_return (&pool, a);
  decoder_pool_return (&pool, b);
  decoder_pool_destroy (&pool);
}

int
main (void)
{
  test_pool ();
  test_half ();
  test_skippable ();
  test_memory ();
  CHECK (decode (17) == 0);
  CHECK (decode (22) == 0);
  CHECK (decode (23) == -EIO);
  CHECK (decode (27) == -EIO);
  return EXIT_SUCCESS;
}
