/* qcow2ext: recording changes in persistent dirty bitmaps.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_BITMAP_TRACKER_H
#define QCOW2_BITMAP_TRACKER_H

#include <stdint.h>

#include "space/epochs.h"

struct tracker;
struct writer;

/* Prepares for recording, before the first change of a session.  *result is
 * NULL if no bitmap records.  Returns 0 or -errno (reported, but for -ENOMEM).
 */
int tracker_start (struct writer *w, struct tracker **result);

/* Frees the tracker (or NULL) with all that was not stored. */
void tracker_stop (struct tracker *t);

/* Counts a change of a guest range (bytes) as in flight, with the bitmaps
 * marked in use and the change recorded.  Takes the tracker's lock and does I/O
 * if the bitmaps are not yet marked.  Returns 0, or -errno with nothing
 * counted.
 */
int tracker_record_change (struct tracker *t, struct epochs *changes,
                           uint64_t count, uint64_t offset,
                           struct epoch_ticket *ticket);

/* Around a change; t is NULL if no bitmap records, and nothing is counted
 * then: what needs a host cluster to stay counts itself.
 */
static inline int
tracker_change_enter (struct tracker *t, struct epochs *changes,
                      uint64_t count, uint64_t offset,
                      struct epoch_ticket *ticket)
{
  return t ? tracker_record_change (t, changes, count, offset, ticket) : 0;
}

static inline void
tracker_change_leave (struct tracker *t, struct epochs *changes,
                      struct epoch_ticket ticket)
{
  if (t)
    epochs_leave (changes, ticket);
}

/* Stores what was recorded and marks the bitmaps as consistent, if no change
 * is under way (else -EBUSY); reads do not matter.  What was written before is
 * durable.  Commits.  t may be NULL.  Returns 0 or -errno (reported, but for
 * -EBUSY).
 */
int tracker_store (struct tracker *t);

#endif /* QCOW2_BITMAP_TRACKER_H */
