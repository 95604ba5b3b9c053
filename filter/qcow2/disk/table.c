/* qcow2ext: tables as they lie on disk.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "base/is-zero.h"
#include "base/report.h"
#include "disk/table.h"

/* How much of a table is looked at in one go, in bytes. */
#define CHUNK 65536

#define bad(fmt, ...)                                                   \
  (report_error ("%s: " fmt, store->name, ##__VA_ARGS__), -EINVAL)

int
table_check_place (const struct store *store, unsigned cluster_bits,
                   const char *what, uint64_t offset, uint64_t count,
                   uint64_t size, uint64_t max)
{
  uint64_t bytes, end;

  if (__builtin_mul_overflow (count, size, &bytes) || bytes > max)
    return bad ("the %s is too large (%" PRIu64 " entries, at most %" PRIu64
                " bytes are allowed)", what, count, max);
  if (offset & ((UINT64_C (1) << cluster_bits) - 1))
    return bad ("the %s is not aligned to a cluster (offset 0x%" PRIx64 ")",
                what, offset);
  if (__builtin_add_overflow (offset, bytes, &end) || end > INT64_MAX)
    return bad ("the offset of the %s is out of range (0x%" PRIx64 ")",
                what, offset);
  return 0;
}

int
table_read (struct store *file, uint64_t offset, uint64_t entries,
            be64 **table)
{
  const uint64_t bytes = entries_bytes (entries);
  CLEANUP_FREE uint8_t *chunk = malloc (min64 (bytes, CHUNK) + 1);
  be64 *result = calloc (entries + 1, sizeof *result);
  int r = chunk && result ? 0 : -ENOMEM;

  for (uint64_t pos = 0, n; r == 0 && pos < bytes; pos += n) {
    n = min64 (bytes - pos, CHUNK);
    r = store_pread (file, chunk, n, offset + pos);
    if (r == 0 && !is_zero (chunk, n))
      memcpy ((uint8_t *) result + pos, chunk, n);
  }
  if (r < 0) {
    free (result);
    result = NULL;
  }
  *table = result;
  return r;
}

/* From pos, which lies behind an empty part, to where there may be entries. */
static uint64_t
skip_hole (struct store *file, uint64_t offset, uint64_t pos, uint64_t bytes)
{
  uint64_t end;
  unsigned type;

  if (pos >= bytes || store_extent (file, offset + pos, &end, &type) < 0
      || !(type & EXTENT_ZERO))
    return pos;
  return min64 (round_down (end - offset, sizeof (be64)), bytes);
}

int
table_walk (struct store *file, uint64_t offset, uint64_t entries,
            table_entry_fn fn, void *opaque)
{
  const uint64_t bytes = entries_bytes (entries);
  CLEANUP_FREE be64 *chunk = malloc (min64 (bytes, CHUNK) + 1);
  int r;

  if (chunk == NULL)
    return -ENOMEM;
  for (uint64_t pos = 0; pos < bytes;) {
    const uint64_t n = min64 (bytes - pos, CHUNK);

    r = store_pread (file, chunk, n, offset + pos);
    if (r < 0)
      return r;
    if (is_zero (chunk, n)) {
      pos = skip_hole (file, offset, pos + n, bytes);
      continue;
    }
    for (uint64_t i = 0; i < n / sizeof (be64); i++) {
      const uint64_t entry = be64_get (chunk[i]);

      if (entry && (r = fn (opaque, pos / sizeof (be64) + i, entry)) != 0)
        return r;
    }
    pos += n;
  }
  return 0;
}
