/* qcow2ext: fuzzes a session in which what is written is compressed.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is the image, then requests (see fuzz_requests), then a byte of
 * which bit 0 says whether to check at open, and bits 2 and up what becomes of
 * zeros that are written.  An image with a data file, or an encrypted one, is
 * not opened for that.
 */

#include "build-config.h"

#include "fuzz.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  return fuzz_session (data, size, false, true);
}

size_t
fuzz_seed (const struct hostile_base *base, const struct memory_file *image,
           uint8_t *input, size_t room)
{
  return base->spec.external || base->spec.encrypted ? 0
    : fuzz_session_seed (image, input, room);
}
