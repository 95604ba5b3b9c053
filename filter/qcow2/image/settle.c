/* qcow2ext: the image while nobody uses it.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * While no request is under way, what is on disk is made complete: commits go
 * on until nothing waits any more, bitmaps are stored, and the end of the file
 * that the session did not need is given back.
 */

#include "build-config.h"

#include <errno.h>
#include <string.h>

#include "data/bitmap-tracker.h"
#include "data/writer.h"
#include "image/settle.h"
#include "space/allocator.h"

/* Guest data, too, has to be durable: the first commit may find no table to
 * write.
 */
static int
commit_all (struct writer *w, bool is_clean)
{
  int r = 0;

  for (unsigned i = 0; i < 4 && r == 0; i++) {
    bool dirty;

    if (i > 0)
      deferred_free_reap (&w->frees);
    dirty = commit_is_dirty (&w->commit)
      || !deferred_free_is_empty (&w->frees);
    if (!dirty && (i > 0 || is_clean))
      break;
    r = commit_run (&w->commit);
  }
  return r;
}

int
layer_settle (struct layer *layer, bool idle)
{
  struct writer *w = layer->writer;
  bool was_active, was_settled;
  int r;

  if (w == NULL || !w->started || w->start_error)
    return 0;
  if (!health_ok (&w->health))
    return -EIO;                /* reported when it failed */
  was_active = atomic_exchange (&w->active, false);
  if (idle && was_active)
    return 0;                   /* next time */

  was_settled = atomic_exchange (&w->settled, true);
  r = commit_all (w, idle && was_settled);
  if (r < 0)
    report_error ("%s: what was written since the last flush may not be on "
                  "disk: %s; the image is sound", layer->file->name,
                  strerror (-r));
  else {
    r = tracker_store (w->tracker);
    if (r == -EBUSY && idle) {  /* a request came in between: next time */
      w->settled = false;
      return 0;
    }
  }
  known_holes_forget (&w->place.holes);
  if (r == 0 && !range_locks_any (&w->ranges)
      && (r = allocator_trim_tail (&w->counts)) < 0)
    report_error ("%s: the end of the file that is not in use could not be cut "
                  "off: %s", layer->file->name, strerror (-r));
  if (r == -ENOSPC)
    allocator_look_again (&w->counts); /* for the next time */
  if (r < 0 || w->active)       /* a request came in between */
    w->settled = false;
  return r;
}
