/* qcow2ext: the list of exports.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/report.h"
#include "config.h"
#include "disk/snapshot.h"
#include "exports.h"
#include "sessions.h"

/* Limits of nbdkit and of the NBD protocol on lists of exports. */
#define MAX_EXPORTS 10000
#define NBD_MAX_STRING 4096

const char *
exports_snapshot (const char *exportname)
{
  return config.list_snapshots && exportname[0] ? exportname
                                                : config.snapshot;
}

/* Describes a snapshot: name, date and the time the guest had run. */
static int
add_snapshot (struct nbdkit_exports *exports, const struct snapshot *s)
{
  const time_t date = s->date_sec;
  const uint64_t ms = s->vm_clock_nsec / 1000000;
  char when[64] = "", *description;
  struct tm tm;
  int r;

  /* What NBD cannot name can still be had with qcow2ext-snapshot=. */
  if (s->id[0] == '\0' || strlen (s->id) > NBD_MAX_STRING)
    return 0;

  if (gmtime_r (&date, &tm))
    strftime (when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", &tm);
  if (asprintf (&description,
                "snapshot \"%.1000s\", %s, VM clock %02" PRIu64
                ":%02u:%02u.%03u",
                s->name, when, ms / 3600000, (unsigned) (ms / 60000 % 60),
                (unsigned) (ms / 1000 % 60), (unsigned) (ms % 1000)) == -1)
    return -1;
  report_mask (description);
  r = nbdkit_add_export (exports, s->id, description);
  free (description);
  return r;
}

int
exports_list (struct served_image *served, nbdkit_backend *backend,
              bool readonly, struct nbdkit_exports *exports)
{
  const struct snapshot_list *list;
  struct session *s;
  int r;

  if (!config.list_snapshots)
    return nbdkit_add_export (exports, "", NULL);

  s = session_get (served, backend, !readonly, NULL);
  if (s == NULL)
    return -1;
  r = nbdkit_add_export (exports, "", s->description);
  list = image_snapshots (s->open.image);
  for (size_t i = 0; r == 0 && i < list->count && i < MAX_EXPORTS - 1; i++)
    r = add_snapshot (exports, &list->snapshot[i]);
  if (list->count > MAX_EXPORTS - 1)
    nbdkit_error ("warning: only %d of %zu snapshots are listed; all can be "
                  "opened", MAX_EXPORTS - 1, list->count);
  session_put (s);
  return r;
}
