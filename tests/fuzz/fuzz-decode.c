/* qcow2ext: fuzzes the decoders, between guard pages.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is a byte (log2 of the cluster size, from 9: bits 0-2; zstd: bit
 * 3), then compressed data.  Whatever decodes does so again, the same way,
 * with a fresh decoder; and what zlib makes of deflated data is what comes of
 * it.  (libdeflate also decodes some streams with incomplete codes, which no
 * compressor makes and which zlib refuses.)
 */

#include "build-config.h"

#include <stdlib.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>

#include "data/decoder.h"
#include "fuzz.h"

#define MAX_CLUSTER 65536

/* Returns whether zlib fills the cluster. */
static bool
by_zlib (const uint8_t *data, size_t size, uint8_t *out, size_t out_size)
{
  z_stream z = { 0 };
  bool full;
  int r;

  if (inflateInit2 (&z, -15) != Z_OK)
    return false;
  z.next_in = (uint8_t *) data;
  z.avail_in = size;
  z.next_out = out;
  z.avail_out = out_size;
  r = inflate (&z, Z_FINISH);
  full = (r == Z_STREAM_END || r == Z_BUF_ERROR) && z.avail_out == 0;
  inflateEnd (&z);
  return full;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static uint8_t a[MAX_CLUSTER], b[MAX_CLUSTER];
  static struct decoder *used;
  struct decoder *fresh;
  size_t out_size;
  unsigned type;
  int r, r2;

  if (size < 2)
    return 0;
  out_size = (size_t) 512 << (data[0] & 7);
  type = data[0] >> 3 & 1;
  data++;
  size--;
  if (size > 2 * out_size)      /* a descriptor says no more */
    size = 2 * out_size;
  if (used == NULL)
    used = decoder_new ();
  fresh = decoder_new ();
  if (used == NULL || fresh == NULL)
    return 0;
  r = decoder_run (used, type, data, size, a, out_size);
  r2 = decoder_run (fresh, type, data, size, b, out_size);
  decoder_free (fresh);
  if (r != r2)
    fuzz_fail ("decoding gives %d, and %d the next time", r, r2);
  if (r == 0 && memcmp (a, b, out_size) != 0)
    fuzz_fail ("decoding gives something else the next time");
  if (type == 0) {
    const bool full = by_zlib (data, size, b, out_size);

    if (full && (r != 0 || memcmp (a, b, out_size) != 0))
      fuzz_fail ("zlib decodes something else");
  }
  return 0;
}

/* From what the disk would hold. */
size_t
fuzz_seed (const struct hostile_base *base, const struct memory_file *image,
           uint8_t *input, size_t room)
{
  static uint8_t plain[MAX_CLUSTER];
  const size_t cluster = (size_t) 1 << base->spec.cluster_bits;
  size_t size;

  if (cluster > sizeof plain)
    return 0;
  for (size_t i = 0; i < cluster; i++)
    plain[i] = i % 64 < 32 ? base->spec.name[i % strlen (base->spec.name)]
                           : image->bytes[(i / 8) % image->size];
  input[0] = base->spec.cluster_bits - 9;
  if (base->spec.refcount_order == 4 && base->spec.cluster_bits % 2) {
    input[0] |= 8;
    size = ZSTD_compress (input + 1, room - 1, plain, cluster, 9);
    return ZSTD_isError (size) ? 0 : size + 1;
  }
  else {
    z_stream z = { 0 };

    if (deflateInit2 (&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
      return 0;
    z.next_in = plain;
    z.avail_in = cluster;
    z.next_out = input + 1;
    z.avail_out = room - 1;
    if (deflate (&z, Z_FINISH) != Z_STREAM_END)
      abort ();
    size = room - z.avail_out;
    deflateEnd (&z);
    return size;
  }
}
