/* qcow2ext: what an image needs before its first change.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/check.h"
#include "image/repair.h"

static int
set_incompatible (struct writer *w, uint64_t bits)
{
  const be64 field = be64_make (bits);
  const int r =
    health_patch_header (&w->health, offsetof (struct qcow2_header,
                                               incompatible_features),
                         &field, sizeof field);

  if (r == 0)
    w->layer->header.incompatible = bits;
  return r;
}

/* Makes the counts those that the tables ask for, if that is all that is
 * wrong.
 */
static int
rebuild_counts (struct writer *w)
{
  struct check_result result;
  int r;

  r = layer_check (w->layer, false, &result);
  if (r == 0 && result.errors != result.wrong_counts + result.wrong_flags)
    r = -ENOTSUP;
  if (r == 0) {
    LOCK_FOR_SCOPE (&w->counts.lock);
    r = refcounts_repair (&w->counts, result.counts, result.clusters);
  }
  free (result.counts);
  if (r == 0)
    r = commit_run (&w->commit);
  /* An attempt before this one may have written counts, and then failed: the
   * commit found nothing to write, and so had nothing to flush.
   */
  if (r == 0)
    r = health_flush (&w->health, w->layer->file, FLUSH_REPAIR);
  if (r == 0) {
    r = layer_check (w->layer, false, &result);
    free (result.counts);
    if (r == 0 && result.errors)
      r = -ENOTSUP;
  }
  return r;
}

/* An image with the dirty bit was written to with lazy refcounts and not
 * closed: its counts are rebuilt from its tables, and only then is it clean.
 */
static int
repair_dirty (struct writer *w)
{
  struct layer *layer = w->layer;
  const uint64_t bits = layer->header.incompatible & ~QCOW2_INCOMPAT_DIRTY;
  int r;

  if (!(layer->header.incompatible & QCOW2_INCOMPAT_DIRTY))
    return 0;
  r = rebuild_counts (w);
  if (r < 0) {
    report_error ("%s: the image was not closed properly and cannot be "
                  "repaired here; use qemu-img check -r all",
                  layer->file->name);
    return r == -ENOTSUP ? -EROFS : r;
  }
  r = set_incompatible (w, bits);
  if (r == 0)
    report_warning ("%s: the image was not closed properly; its refcounts "
                    "have been repaired", layer->file->name);
  return r;
}

/* Unknown autoclear bits vouch for things that we do not keep true; the one
 * for bitmaps, for an extension that must be there.
 */
static int
clear_autoclear (struct writer *w)
{
  struct header *h = &w->layer->header;
  const uint64_t bits = h->autoclear & QCOW2_AUTOCLEAR_KNOWN
    & ~(h->has_bitmaps ? 0 : QCOW2_AUTOCLEAR_BITMAPS);
  const be64 field = be64_make (bits);
  int r;

  if (h->version < 3 || bits == h->autoclear)
    return 0;
  r = health_patch_header (&w->health, offsetof (struct qcow2_header,
                                                 autoclear_features),
                           &field, sizeof field);
  if (r == 0)
    h->autoclear = bits;
  return r;
}

int
repair_image (struct writer *w)
{
  const int r = repair_dirty (w);

  return r < 0 ? r : clear_autoclear (w);
}

/* What a raw data file shows is the whole disk. */
int
repair_data_file (struct writer *w)
{
  struct layer *layer = w->layer;
  uint64_t size;
  int r;

  if (!layer->geo.data_file_raw)
    return 0;
  r = store_get_size (layer->clusters, &size);
  if (r == 0 && size < layer->size)
    r = store_resize (layer->clusters, layer->size);
  if (r < 0)
    report_error ("%s: the external data file %s cannot be extended to the "
                  "size of the disk: %s", layer->file->name,
                  layer->clusters->name, strerror (-r));
  return r;
}
