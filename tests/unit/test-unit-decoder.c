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
#include <stdint.h>

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
  CHECK (decode (17) == 0);
  CHECK (decode (22) == 0);
  CHECK (decode (23) == -EIO);
  CHECK (decode (27) == -EIO);
  return EXIT_SUCCESS;
}
