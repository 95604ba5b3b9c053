/* qcow2ext: writing guest data, zeroing, trimming.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * What all requests share that change the image: they begin, are recorded in
 * the bitmaps, try once more if space had run out that was only waiting to be
 * free, and commit if too much waits for that.
 */

#include "build-config.h"

#include <errno.h>
#include <time.h>

#include "data/bitmap-tracker.h"
#include "data/write-content.h"
#include "data/write.h"
#include "data/zero.h"
#include "map/l2-cache.h"
#include "space/allocator.h"

/* Bytes that were let go of and wait for a commit, before one is made. */
#define FREED_MAX (UINT64_C (64) << 20)

/* Begins a change.  Returns 0 or -errno. */
static int
begin (struct layer *layer)
{
  struct writer *w = layer->writer;
  int r = 0;

  if (w == NULL)
    return -EROFS;
  if (!atomic_load_explicit (&w->started, memory_order_acquire))
    r = w->start (w);
  if (r == 0 && !health_ok (&w->health))
    r = w->start_error ? w->start_error : -EIO;
  if (r == 0 && !atomic_load_explicit (&w->active, memory_order_relaxed)) {
    w->active = true;
    w->settled = false;
  }
  return r;
}

/* After a request: commits if too much waits for that. */
static int
commit_if_needed (struct writer *w)
{
  if (l2_cache_needs_commit (w->layer->tables)
      || w->frees.pending_bytes > FREED_MAX)
    return commit_run (&w->commit);
  if (!deferred_free_is_empty (&w->frees))
    deferred_free_reap (&w->frees);
  return 0;
}

/* Looks for space, because it has run out: a device may have been enlarged, and
 * clusters may be waiting to be free.  Returns whether there was something.
 * The caller is counted in no epoch.
 */
static bool
reclaim_space (struct writer *w)
{
  if (allocator_look_again (&w->counts)) {
    w->said_no_space = false;
    return true;
  }
  if (deferred_free_is_empty (&w->frees))
    return false;
  /* The first commit makes it durable, after which requests have to end that
   * were under way; nothing tells when they do.
   */
  for (unsigned i = 0; i < 50; i++) {
    if (commit_run (&w->commit) < 0)
      return false;
    if (deferred_free_is_empty (&w->frees))
      return true;
    nanosleep (&(struct timespec) { .tv_nsec = 2000000 }, NULL);
  }
  return true;
}

/* Says so once a session.  Where the image can grow, nothing but the host's
 * file system can be full.
 */
static void
report_no_space (struct writer *w)
{
  if (!w->counts.end.can_grow && !atomic_exchange (&w->said_no_space, true))
    report_error ("%s: no cluster is free, and the image cannot grow: it is on "
                  "a device, or there is a filter or a server between qcow2ext "
                  "and the file", w->layer->file->name);
}

int
layer_write (struct layer *layer, const void *buf, size_t count,
             uint64_t offset)
{
  struct writer *w = layer->writer;
  bool tried = false;
  int r;

  if ((r = begin (layer)) < 0)
    return r;
  do {
    struct epoch_ticket ticket = { 0 };

    if ((r = tracker_change_enter (w->tracker, &w->changes, count, offset,
                                   &ticket)) < 0)
      return r;
    r = write_content (w, buf, count, offset);
    tracker_change_leave (w->tracker, &w->changes, ticket);
  } while (r == -ENOSPC && !tried && (tried = true) && reclaim_space (w));
  if (r == -ENOSPC)
    report_no_space (w);
  if (r < 0)
    return r;
  return layer->tables->dirty_bytes || w->frees.bytes
    ? commit_if_needed (w) : 0;
}

static int
zero_or_trim (struct layer *layer, struct zero_request *z, uint64_t count,
              uint64_t offset)
{
  struct writer *w = layer->writer;
  bool tried = false;
  int r;

  if ((r = begin (layer)) < 0)
    return r;
  z->w = w;
  if (z->fast && (r = zero_check_fast (z, count, offset)) < 0)
    return r;
  do {
    struct epoch_ticket ticket = { 0 };

    if ((r = tracker_change_enter (w->tracker, &w->changes, count, offset,
                                   &ticket)) < 0)
      return r;
    r = zero_range (z, count, offset);
    tracker_change_leave (w->tracker, &w->changes, ticket);
  } while (r == -ENOSPC && !tried && (tried = true) && reclaim_space (w));
  if (r == -ENOSPC)
    report_no_space (w);
  if (r < 0)
    return r;
  return commit_if_needed (w);
}

int
layer_zero (struct layer *layer, uint64_t count, uint64_t offset,
            unsigned flags)
{
  struct zero_request z = {
    .unmap = flags & STORE_ZERO_PUNCH,
    .fast = flags & STORE_ZERO_FAST,
  };

  return zero_or_trim (layer, &z, count, offset);
}

int
layer_trim (struct layer *layer, uint64_t count, uint64_t offset)
{
  struct zero_request z = { .unmap = true, .trim = true };

  return zero_or_trim (layer, &z, count, offset);
}
