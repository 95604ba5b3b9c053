/* qcow2ext: what an export is, for people.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/printable.h"
#include "describe.h"

static char *
masked (int r, char *description)
{
  if (r == -1)
    return NULL;
  printable_mask (description);
  return description;
}

/* Name, date and the time the guest had run. */
char *
describe_snapshot (const struct snapshot *s)
{
  const time_t date = s->date_sec;
  const uint64_t ms = s->vm_clock_nsec / 1000000;
  char when[64] = "", *description;
  struct tm tm;
  int r;

  if (gmtime_r (&date, &tm))
    strftime (when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", &tm);
  r = asprintf (&description,
                "snapshot \"%.1000s\", %s, VM clock %02" PRIu64
                ":%02u:%02u.%03u",
                s->name, when, ms / 3600000, (unsigned) (ms / 60000 % 60),
                (unsigned) (ms / 1000 % 60), (unsigned) (ms % 1000));
  return masked (r, description);
}

char *
describe_bitmap (const struct image *image, size_t index, bool count)
{
  const struct image_bitmap b = image_bitmap (image, index);
  char changed[64] = "", *description;
  uint64_t bytes;
  int r;

  if (b.usable && count && image_bitmap_changed (image, index, &bytes) == 0)
    snprintf (changed, sizeof changed, ", %" PRIu64 " bytes changed", bytes);
  r = asprintf (&description,
                "bitmap \"%.1023s\", granularity %" PRIu64 " bytes%s, %s",
                b.name, b.granularity, changed,
                !b.usable ? "inconsistent: in use, or it was when a program "
                            "that recorded in it ended"
                : b.enabled ? "records what is written" : "disabled");
  return masked (r, description);
}

char *
describe_export (const struct image *image, const struct export *export)
{
  const struct snapshot *snapshot;

  switch (export->kind) {
  case EXPORT_SNAPSHOT:
    snapshot = snapshot_find (image_snapshots (image), export->name);
    return snapshot ? describe_snapshot (snapshot) : NULL;
  case EXPORT_BITMAP:
    for (size_t i = 0; i < image_bitmaps (image); i++)
      if (strcmp (image_bitmap (image, i).name, export->name) == 0)
        return describe_bitmap (image, i, true);
    return NULL;
  default:
    return image_describe (image);
  }
}
