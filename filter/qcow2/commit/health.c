/* qcow2ext: may the image still be written to?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>

#include "base/report.h"
#include "commit/health.h"

static const char *const flush_failed[] = {
  [FLUSH_NEW] =
    "a flush failed, so what was written since the last one may be lost",
  [FLUSH_POINTERS] =
    "a flush failed, so what was written since the last one may be lost",
  [FLUSH_GROWTH] = "flushing new refcounts failed",
  [FLUSH_BITMAPS] = "flushing the bitmaps failed",
  [FLUSH_REPAIR] = "flushing the repaired refcounts failed",
  [FLUSH_INHERITED] =
    "the first flush failed, so what an earlier server wrote may be lost",
};

int
health_fail (struct health *h, const char *why)
{
  if (!atomic_exchange (&h->failed, true))
    report_error ("%s: %s; the image refuses all further writes until the "
                  "server is started again", h->file->name, why);
  return -EIO;
}

int
health_mark_corrupt (struct health *h, const char *why)
{
  const uint64_t bits = h->header->incompatible | QCOW2_INCOMPAT_CORRUPT;
  const be64 field = be64_make (bits);

  if (atomic_exchange (&h->failed, true))
    return -EIO;
  report_error ("%s: %s; the image refuses all further writes and is marked "
                "corrupt: see qemu-img check", h->file->name, why);
  if (h->header->version >= 3
      && health_patch_header (h, offsetof (struct qcow2_header,
                                           incompatible_features),
                              &field, sizeof field) == 0)
    h->header->incompatible = bits;
  return -EIO;
}

int
health_flush (struct health *h, struct store *store, enum flush_reason reason)
{
  const int r = store_flush (store);

  if (r < 0)
    health_fail (h, flush_failed[reason]);
  return r;
}

int
health_patch_header (struct health *h, uint64_t offset, const void *data,
                     size_t len)
{
  int r;

  if ((r = store_pwrite (h->file, data, len, offset)) < 0
      || (r = store_flush (h->file)) < 0)
    /* It may be there or not: only a new look at the file tells. */
    health_fail (h, "the header could not be written");
  return r;
}
