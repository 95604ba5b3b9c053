/* qcow2ext: how much memory a compressed cluster may ask for.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A zstd frame says how far it looks back.  If it is cut short, so that it has
 * to be decoded as a stream, so much is allocated.
 */

#include "build-config.h"

#include <errno.h>
#include <stdint.h>

#include "check.h"
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

int
main (void)
{
  CHECK (decode (17) == 0);
  CHECK (decode (22) == 0);
  CHECK (decode (23) == -EIO);
  CHECK (decode (27) == -EIO);
  return EXIT_SUCCESS;
}
