/* qcow2ext: fuzzes the header.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is the beginning of an image.  What header_read lets through must
 * be as header.h promises.
 */

#include "build-config.h"

#include <string.h>

#include "fuzz.h"
#include "disk/header.h"
#include "base/report.h"

static void
sink (enum report_level level, const char *message)
{
  (void) level;
  if (strlen (message) > 2047)
    fuzz_fail ("a message of %zu bytes", strlen (message));
}

static bool
is_table (const struct header *h, uint64_t offset, uint64_t bytes,
          uint64_t max)
{
  return bytes <= max && offset % (UINT64_C (1) << h->cluster_bits) == 0
    && offset <= INT64_MAX - bytes;
}

static void
check_name (const char *name, size_t max)
{
  if (name && (name[0] == '\0' || strlen (name) > max))
    fuzz_fail ("a name of %zu bytes", strlen (name));
}

static void
check (const struct header *h)
{
  const uint64_t cluster = UINT64_C (1) << h->cluster_bits;

  if (h->version < 2 || h->version > 3 || h->cluster_bits < 9
      || h->cluster_bits > 21 || h->size > INT64_MAX
      || h->refcount_order > 6 || h->compression_type > 1
      || h->incompatible & ~QCOW2_INCOMPAT_KNOWN
      || h->header_length > cluster)
    fuzz_fail ("a field is out of range");
  if (!is_table (h, h->l1_offset, h->l1_entries * UINT64_C (8), 32 << 20)
      || !is_table (h, h->reftable_offset, h->reftable_clusters * cluster,
                    8 << 20)
      || !is_table (h, h->snapshots_offset, h->nb_snapshots * UINT64_C (40),
                    64 << 20)
      || h->reftable_clusters == 0 || h->reftable_offset == 0
      || (h->l1_entries && h->l1_offset == 0))
    fuzz_fail ("a table is out of range");
  if (h->has_bitmaps && h->autoclear & QCOW2_AUTOCLEAR_BITMAPS
      && (!is_table (h, h->bitmap_directory_offset, h->bitmap_directory_size,
                     64 << 20)
          || h->nb_bitmaps == 0 || h->nb_bitmaps > QCOW2_MAX_BITMAPS))
    fuzz_fail ("the bitmap directory is out of range");
  if ((h->size >> header_l2_coverage_bits (h)) > h->l1_entries)
    fuzz_fail ("the L1 table is too small");
  check_name (h->backing_file, QCOW2_MAX_NAME);
  check_name (h->backing_format, QCOW2_MAX_FORMAT_NAME);
  check_name (h->data_file, QCOW2_MAX_NAME);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct memory_file file = { 0 };
  struct store *store;
  struct header h;

  report_set_sink (sink);
  if (size)
    memory_file_write (&file, data, size, 0);
  store = store_memory_new (&file, NULL, MEMORY_IMAGE, false);
  if (header_read (store, &h) == 0) {
    check (&h);
    header_free (&h);
  }
  store_close (store);
  memory_file_free (&file);
  return 0;
}

size_t
fuzz_seed (const struct hostile_base *base, const struct memory_file *image,
           uint8_t *input, size_t room)
{
  const size_t size = image->size < 512 ? image->size : 512;

  (void) base;
  if (size > room)
    return 0;
  memcpy (input, image->bytes, size);
  return size;
}
