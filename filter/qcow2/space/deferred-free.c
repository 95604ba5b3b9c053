/* qcow2ext: host ranges that were let go of, until they may be used again.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "space/deferred-free.h"

/* Each cluster that it touches loses one reference. */
struct freed {
  uint64_t offset, length;      /* bytes */
  bool table;                   /* a table: that it is metadata is right */
};

/* --- lists --- */

static int
list_reserve (struct freed_list *list, size_t n)
{
  struct freed *item;
  size_t room = list->room ? list->room : 16;

  if (list->count + n <= list->room)
    return 0;
  while (room < list->count + n)
    room *= 2;
  item = realloc (list->item, room * sizeof *item);
  if (item == NULL)
    return -ENOMEM;
  list->item = item;
  list->room = room;
  return 0;
}

/* Moves all of "from" to the end of "to".  If there is no memory for that,
 * they stay where they are.
 */
static int
list_move (struct freed_list *to, struct freed_list *from)
{
  if (to->count == 0) {
    struct freed_list empty = *to;

    *to = *from;
    *from = empty;
    return 0;
  }
  if (list_reserve (to, from->count) < 0)
    return -ENOMEM;
  if (from->count)
    memcpy (to->item + to->count, from->item,
            from->count * sizeof *from->item);
  to->count += from->count;
  from->count = 0;
  return 0;
}

void
deferred_free_init (struct deferred_free *df, struct refcounts *counts,
                    struct epochs *changes, struct epochs *in_place,
                    deferred_free_fn forget, void *opaque)
{
  *df = (struct deferred_free) {
    .counts = counts, .epochs = { changes, in_place }, .forget = forget,
    .opaque = opaque,
  };
  pthread_mutex_init (&df->lock, NULL);
}

void
deferred_free_destroy (struct deferred_free *df)
{
  free (df->pending.item);
  free (df->in_commit.item);
  free (df->committed.item);
  free (df->draining.item);
  pthread_mutex_destroy (&df->lock);
}

int
deferred_free_reserve (struct deferred_free *df, size_t n)
{
  LOCK_FOR_SCOPE (&df->lock);
  return list_reserve (&df->pending, n);
}

void
deferred_free_add (struct deferred_free *df, uint64_t offset, uint64_t length,
                   bool table)
{
  const uint64_t size = refcounts_cluster_size (df->counts);
  struct freed *last = NULL;

  LOCK_FOR_SCOPE (&df->lock);
  df->pending_bytes += length;
  df->bytes += length;
  if (df->pending.count)
    last = &df->pending.item[df->pending.count - 1];
  if (last && last->offset + last->length == offset && last->table == table
      && (offset & (size - 1)) == 0)
    last->length += length;
  else
    df->pending.item[df->pending.count++] =
      (struct freed) { .offset = offset, .length = length, .table = table };
}

void
deferred_free_take (struct deferred_free *df)
{
  LOCK_FOR_SCOPE (&df->lock);
  /* What a commit could not put back, for want of memory, goes first. */
  list_move (&df->in_commit, &df->pending);
  df->pending_bytes = 0;
}

void
deferred_free_done (struct deferred_free *df, bool durable)
{
  LOCK_FOR_SCOPE (&df->lock);
  list_move (durable ? &df->committed : &df->pending, &df->in_commit);
}

/* --- releasing; under the space lock --- */

static void
discard (struct refcounts *rc, uint64_t start, uint64_t n)
{
  const unsigned bits = rc->end.cluster_bits;

  pthread_mutex_unlock (&rc->lock);
  store_discard (rc->file, n << bits, start << bits);
  pthread_mutex_lock (&rc->lock);
}

static int
compare_offsets (const void *a, const void *b)
{
  const uint64_t x = ((const struct freed *) a)->offset;
  const uint64_t y = ((const struct freed *) b)->offset;

  return x < y ? -1 : x > y;
}

static bool
touches (const struct freed *f, uint64_t cluster, unsigned bits)
{
  return f->offset >> bits <= cluster
    && (f->offset + f->length - 1) >> bits >= cluster;
}

/* How many references a cluster of an item loses; more than it can have if the
 * next item counts them.  The list is sorted by offset: compressed pieces of
 * one cluster are neighbours.
 */
static uint64_t
references_lost (const struct freed_list *list, size_t item, uint64_t cluster,
                 unsigned bits)
{
  const struct freed *f = &list->item[item];
  uint64_t n = 1;

  if (item + 1 < list->count && touches (&f[1], cluster, bits))
    return UINT64_MAX;
  while (n <= item && touches (f - n, cluster, bits))
    n++;
  return n;
}

/* Gives the space of an item's clusters back that are about to become free.
 * Their counts are not 0 yet, so no request can take them while the lock is let
 * go of.
 */
static void
discard_item (struct refcounts *rc, const struct freed_list *list, size_t item)
{
  const struct freed *f = &list->item[item];
  const unsigned bits = rc->end.cluster_bits;
  const uint64_t last = (f->offset + f->length - 1) >> bits;
  uint64_t start = 0, n = 0;

  for (uint64_t c = f->offset >> bits; c <= last; c++) {
    uint64_t count;

    if (refcounts_get (rc, c, &count) == 0
        && count == references_lost (list, item, c, bits)) {
      if (n++ == 0)
        start = c;
      continue;
    }
    if (n)
      discard (rc, start, n);
    n = 0;
  }
  if (n)
    discard (rc, start, n);
}

/* Tables that only we referred to are metadata no more; those that a snapshot
 * shares stay it.
 */
static int
forget_tables (struct refcounts *rc, const struct freed *f)
{
  const unsigned bits = rc->end.cluster_bits;
  uint64_t count;
  int r;

  for (uint64_t c = f->offset >> bits; c < (f->offset + f->length) >> bits;
       c++) {
    if ((r = refcounts_get (rc, c, &count)) < 0)
      return r;
    if (count == 1)
      metadata_map_remove (rc->metadata, c);
  }
  return 0;
}

/* Whatever the counts say, guest data must not have been where metadata is,
 * and a snapshot's table must not become free.
 */
static int
check_range (struct refcounts *rc, const struct freed *f)
{
  const unsigned bits = rc->end.cluster_bits;
  uint64_t count;
  int r;

  if (!f->table) {
    if (metadata_map_overlaps (rc->metadata, f->offset, f->length))
      return health_mark_corrupt (rc->health,
                                  "guest data was where metadata is");
    return 0;
  }
  for (uint64_t c = f->offset >> bits; c < (f->offset + f->length) >> bits;
       c++) {
    if (!metadata_map_is_snapshot_table (rc->metadata, c))
      continue;
    if ((r = refcounts_get (rc, c, &count)) < 0)
      return r;
    if (count <= 1)
      return health_mark_corrupt (rc->health, "the refcount of a snapshot's "
                                  "table is too low");
  }
  return 0;
}

/* Releases what is draining: all, or as much as can be. */
static int
release (struct deferred_free *df)
{
  struct refcounts *rc = df->counts;
  struct freed_list *list = &df->draining;
  int r;

  if (list->count)
    qsort (list->item, list->count, sizeof list->item[0], compare_offsets);
  LOCK_FOR_SCOPE (&rc->lock);
  for (size_t i = 0; i < list->count; i++)
    if ((r = check_range (rc, &list->item[i])) < 0)
      return r;
  /* All of them before the lock is let go of: while a cluster is discarded,
   * nothing must be added to it.
   */
  for (size_t i = 0; i < list->count; i++)
    refcounts_close_cursor (rc, list->item[i].offset, list->item[i].length);
  for (size_t i = 0; i < list->count; i++)
    discard_item (rc, list, i);
  /* From here on the lock is held.  What was checked still holds: a cluster
   * whose count is not 0 cannot have become a table.  What cannot be released
   * now is tried again, and nothing twice.
   */
  while (list->count) {
    const struct freed *f = &list->item[list->count - 1];

    df->forget (df->opaque, f->offset, f->length);
    if ((f->table && (r = forget_tables (rc, f)) < 0)
        || (r = refcounts_drop (rc, f->offset, f->length)) < 0)
      return r;
    df->bytes -= f->length;
    list->count--;
  }
  return 0;
}

/* Begins the grace period of what is draining, where that can be yet, and
 * returns whether it is over.
 */
static bool
is_drained (struct deferred_free *df)
{
  bool drained = true;

  for (unsigned i = 0; i < 2; i++) {
    if (!df->begun[i])
      df->begun[i] = epochs_advance (df->epochs[i], &df->grace[i]);
    if (!df->begun[i] || !epochs_drained (df->epochs[i], df->grace[i]))
      drained = false;
  }
  return drained;
}

/* Takes the list of what is draining, if its grace period is over; begins the
 * next one if there is none.
 */
static bool
claim_draining (struct deferred_free *df)
{
  LOCK_FOR_SCOPE (&df->lock);
  if (df->reaping)
    return false;
  if (df->draining.count == 0) {
    if (df->committed.count == 0)
      return false;
    list_move (&df->draining, &df->committed);
    df->begun[0] = df->begun[1] = false;
  }
  if (!is_drained (df)
      || !health_ok (df->counts->health))
    return false;
  df->reaping = true;
  return true;
}

void
deferred_free_reap (struct deferred_free *df)
{
  int r = 0;

  while (r == 0 && claim_draining (df)) {
    r = release (df);
    LOCK_FOR_SCOPE (&df->lock);
    df->reaping = false;
  }
}
