/* qcow2ext: fuzzes a whole session on any image.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is the image, then requests (see fuzz_requests), then a byte of
 * which bit 0 says whether to check at open, bit 1 that the data file is empty,
 * and the others what becomes of zeros that are written.
 */

#include "build-config.h"

#include "fuzz.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  return fuzz_session (data, size, false, false);
}

size_t
fuzz_seed (const struct hostile_base *base, const struct memory_file *image,
           uint8_t *input, size_t room)
{
  return base->spec.external ? 0 : fuzz_session_seed (image, input, room);
}
