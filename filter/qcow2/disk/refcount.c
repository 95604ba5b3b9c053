/* qcow2ext: how a refcount lies in a refcount block.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include "disk/format.h"
#include "disk/refcount.h"

uint64_t
refcount_decode (const void *block, unsigned order, uint64_t index)
{
  switch (order) {
  case 6: return be64_get (((const be64 *) block)[index]);
  case 5: return be32_get (((const be32 *) block)[index]);
  case 4: return be16_get (((const be16 *) block)[index]);
  case 3: return ((const uint8_t *) block)[index];
  default: {
    const unsigned per_byte = 8 >> order;
    const unsigned shift = (index % per_byte) << order;

    return ((const uint8_t *) block)[index / per_byte] >> shift
      & ((1U << (1 << order)) - 1);
  }
  }
}

void
refcount_encode (void *block, unsigned order, uint64_t index, uint64_t count)
{
  switch (order) {
  case 6: ((be64 *) block)[index] = be64_make (count); break;
  case 5: ((be32 *) block)[index] = be32_make (count); break;
  case 4: ((be16 *) block)[index] = be16_make (count); break;
  case 3: ((uint8_t *) block)[index] = count; break;
  default: {
    const unsigned per_byte = 8 >> order;
    const unsigned shift = (index % per_byte) << order;
    const unsigned mask = ((1U << (1 << order)) - 1) << shift;
    uint8_t *p = &((uint8_t *) block)[index / per_byte];

    *p = (*p & ~mask) | count << shift;
  }
  }
}
