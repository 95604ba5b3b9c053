/* qcow2ext: writing guest data, zeroing, trimming.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * What is mapped and ours alone (the copied flag; any mapped cluster of an
 * external data file) is written where it is, with no lock and no change of
 * metadata.  Everything else is a plan for a run of clusters of one L2 table:
 *
 *   1. lock the guest range against other plans, look at its state then
 *   2. find the clusters a place: the one they have, or a new one
 *   3. write guest data, with the rest of each cluster (or subcluster) that
 *      is touched around it: what the guest saw there until now
 *   4. publish the entries in memory, and let go of what they referred to
 *
 * Until 4 the guest sees the old state, after 4 all of the new one; if
 * anything fails before, the new place is given back.  A commit makes it
 * durable (commit.c).
 *
 * Zeroing is a plan without steps 2 and 3 where the format has a flag.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "base/mutant.h"
#include "base/pause-point.h"
#include "data/read.h"
#include "data/write.h"
#include "image/bitmap.h"
#include "image/writer.h"
#include "map/mapping.h"

/* Up to this size, a write is put together in memory with what surrounds it,
 * to be one write.
 */
#define MERGE_MAX (UINT64_C (4) << 20)

/* Bytes that were let go of and wait for a commit, before one is made. */
#define FREED_MAX (UINT64_C (64) << 20)

/* A run of clusters of one L2 table that is to be written. */
struct plan {
  struct writer *w;
  struct layer *layer;
  uint64_t start, stop;         /* guest data, bytes */
  uint64_t from, to;            /* with what surrounds it */
  uint64_t cluster;             /* guest offset of the first cluster */
  uint64_t clusters;
  uint64_t host;                /* of the first cluster, in image->data */
  bool allocated;               /* host is new */
  bool fill_is_zero;            /* what surrounds it reads as zeros... */
  bool place_is_zero;           /* ...as does the place before the write */
  bool whole;                   /* each cluster is written as a whole */
  bool in_hole;                 /* all is known to be a hole, but what... */
  uint64_t forgotten;           /* ...is mapped; data_holes.forgotten then */
  uint64_t hole_start, hole_end; /* of the data file, if one was found */
};

/* Begins a change.  Returns 0 or -errno. */
static int
begin (struct layer *layer)
{
  struct writer *w = layer->writer;
  int r = 0;

  if (w == NULL)
    return -EROFS;
  if (!atomic_load_explicit (&w->started, memory_order_acquire))
    r = writer_start (w);
  if (r == 0 && atomic_load_explicit (&w->failed, memory_order_relaxed))
    r = w->start_error ? w->start_error : -EIO;
  if (r == 0 && !atomic_load_explicit (&w->active, memory_order_relaxed)) {
    w->active = true;
    w->settled = false;
  }
  return r;
}

/* Counts a change of a guest range as in flight, with the bitmaps open and the
 * change recorded.
 */
static int
enter_change (struct layer *layer, uint64_t count, uint64_t offset,
              struct inflight_ticket *ticket)
{
  struct writer *w = layer->writer;
  int r;

  if (MUTANT (bitmap_look_first) && w->tracking
      && w->bitmaps_open == BITMAPS_OPEN) {
    PAUSE_POINT ("change: looked first");
    *ticket = inflight_enter (&w->inflight);
    bitmap_record (layer, count, offset);
    return 0;
  }
  for (;;) {
    *ticket = inflight_enter (&w->inflight);
    PAUSE_POINT ("change: in flight");
    if (!w->tracking)
      return 0;
    if (w->bitmaps_open == BITMAPS_OPEN) {
      PAUSE_POINT ("change: bitmaps are open");
      bitmap_record (layer, count, offset);
      return 0;
    }
    inflight_leave (&w->inflight, *ticket);
    if ((r = bitmap_open (w)) < 0)
      return r;
  }
}

static int
fail_on_metadata (struct writer *w)
{
  LOCK_FOR_SCOPE (&w->lock);
  return writer_fail (w, true, "a guest cluster lies where metadata is");
}

/* A place in the image file that an entry names, but where tables are, would
 * destroy the image if it were written to.
 */
static int
check_target (struct layer *layer, uint64_t host, uint64_t length)
{
  struct writer *w = layer->writer;

  if (layer->geo.has_data_file || !metadata_overlaps (w, host, length))
    return 0;
  return fail_on_metadata (w);
}

/* Takes writer->lock and the table cache's lock for writing, with the table
 * of l1_index in memory and ready for changes.  On failure holds neither.
 */
static int
lock_table (struct writer *w, uint32_t l1_index, struct l2_table **t)
{
  struct layer *layer = w->layer;
  struct brlock *lock = table_cache_lock (layer->tables);
  const char *why;
  int r;

  for (;;) {
    r = table_cache_load (layer, l1_index, &why);
    if (r < 0)
      return r;
    pthread_mutex_lock (&w->lock);
    brlock_write (lock);
    *t = layer->l2[l1_index];
    if (*t)
      break;
    brlock_write_unlock (lock);
    pthread_mutex_unlock (&w->lock);
  }
  r = w->failed ? -EIO : l2_table_prepare (*t);
  if (r < 0) {
    brlock_write_unlock (lock);
    pthread_mutex_unlock (&w->lock);
  }
  return r;
}

static void
unlock_table (struct writer *w)
{
  brlock_write_unlock (table_cache_lock (w->layer->tables));
  pthread_mutex_unlock (&w->lock);
}

/* Gives back a cluster that was allocated for a table. */
static void
unalloc_table (struct writer *w, uint64_t host)
{
  metadata_remove (w, host >> w->layer->geo.cluster_bits);
  refcount_unalloc (w, host, 1);
}

/* Allocates one cluster for a table.  It is written at once, so that its space
 * is there when a commit has to write the table: a full disk must fail the
 * request that needs the table, not all commits from then on.
 */
static int
alloc_table (struct writer *w, uint64_t *host)
{
  const size_t size = layer_cluster_size (w->layer);
  CLEANUP_FREE void *zeros = calloc (1, size);
  uint64_t got;
  bool zero;
  int r;

  if (zeros == NULL)
    return -ENOMEM;
  if ((r = refcount_alloc (w, 1, host, &got, &zero)) < 0)
    return r;
  if ((r = metadata_add (w, *host >> w->layer->geo.cluster_bits)) < 0) {
    refcount_unalloc (w, *host, 1);
    return r;
  }
  r = store_pwrite (w->layer->file, zeros, size, *host);
  if (r < 0 && !MUTANT (keep_failed_table))
    unalloc_table (w, *host);
  return r;
}

/* Makes sure that there is an L2 table that is ours alone.  Spec: an L1 entry
 * without the copied flag refers to a table that a snapshot shares.
 */
static int
ensure_table (struct writer *w, uint32_t l1_index)
{
  struct layer *layer = w->layer;
  struct l2_table *t;
  uint64_t host, old;
  int r;

  if ((layer_l1_entry (layer, l1_index) & QCOW2_COPIED
       || MUTANT (share_table))
      && layer_l2_offset (layer, l1_index))
    return 0;

  if (layer_l2_offset (layer, l1_index) == 0) {
    LOCK_FOR_SCOPE (&w->lock);
    if (layer_l2_offset (layer, l1_index) && !MUTANT (table_twice))
      return 0;                 /* another plan made it */
    r = w->failed ? -EIO : alloc_table (w, &host);
    if (r < 0)
      return r;
    t = table_cache_create (layer, l1_index, host);
    if (t == NULL) {
      unalloc_table (w, host);
      return -ENOMEM;
    }
    commit_mark_table (w, t);
    commit_mark_l1 (w, l1_index);
    return 0;
  }

  /* The allocator takes the table cache's lock, so it goes first. */
  pthread_mutex_lock (&w->lock);
  r = w->failed ? -EIO : alloc_table (w, &host);
  pthread_mutex_unlock (&w->lock);
  if (r < 0)
    return r;

  r = lock_table (w, l1_index, &t);
  if (r == 0 && (r = commit_reserve_frees (w, 1)) < 0)
    unlock_table (w);
  if (r < 0) {
    LOCK_FOR_SCOPE (&w->lock);
    unalloc_table (w, host);
    return r;
  }
  old = layer_l2_offset (layer, l1_index);
  if (layer_l1_entry (layer, l1_index) & QCOW2_COPIED) {
    unlock_table (w);           /* another plan was faster */
    LOCK_FOR_SCOPE (&w->lock);
    if (!MUTANT (keep_raced_table))
      unalloc_table (w, host);
    return 0;
  }
  t->host = host;
  t->fresh = true;
  __atomic_store_n (&layer->l1[l1_index].raw,
                    be64_make (host | QCOW2_COPIED).raw, __ATOMIC_RELAXED);
  commit_mark_table (w, t);
  commit_mark_l1 (w, l1_index);
  commit_free_later (w, old, layer_cluster_size (layer), true);
  unlock_table (w);
  return 0;
}

static bool
has_own_place (const struct layer *layer, uint64_t entry)
{
  return l2_entry_writable_in_place (&layer->geo, layer_file_size (layer),
                                     entry);
}

/* Step 2, with the place the first cluster has: how many clusters follow each
 * other there?
 */
static int
plan_in_place (struct plan *p, uint64_t want, uint64_t entry)
{
  struct layer *layer = p->layer;
  struct mapping_entry e;
  int r;

  if (layer->geo.has_data_file) {
    p->host = p->cluster;
    p->clusters = want;
    return 0;
  }
  p->host = entry & QCOW2_L2_OFFSET;
  for (p->clusters = 1; p->clusters < want; p->clusters++) {
    const uint64_t skip = p->clusters << layer->geo.cluster_bits;

    if ((r = mapping_get_entry (layer, p->cluster + skip, &e)) < 0)
      return r;
    if (!has_own_place (layer, e.entry)
        || (e.entry & QCOW2_L2_OFFSET) != p->host + skip)
      break;
  }
  return check_target (layer, p->host, p->clusters << layer->geo.cluster_bits);
}

/* Step 2, for clusters that need a new place. */
static int
plan_new_place (struct plan *p, uint64_t want)
{
  struct layer *layer = p->layer;
  struct mapping_entry e;
  uint64_t n;
  int r;

  for (n = 1; n < want; n++) {
    if ((r = mapping_get_entry (layer, p->cluster + (n << layer->geo.cluster_bits),
                                &e)) < 0)
      return r;
    if (has_own_place (layer, e.entry))
      break;
  }
  LOCK_FOR_SCOPE (&p->w->lock);
  if (p->w->failed)
    return -EIO;
  r = refcount_alloc (p->w, n, &p->host, &p->clusters, &p->place_is_zero);
  p->allocated = r == 0;
  return r;
}

/* Is the place in the data file a hole? */
static bool
is_hole (struct plan *p)
{
  const uint64_t offset = p->host + (p->from - p->cluster);
  unsigned type;

  if (p->in_hole)
    return true;
  if (store_extent (p->layer->clusters, offset, &p->hole_end, &type) < 0
      || type != (EXTENT_HOLE | EXTENT_ZERO)) {
    p->hole_end = 0;
    return false;
  }
  p->hole_start = offset;
  return p->hole_end - offset >= p->to - p->from;
}

/* Steps 1 (behind the lock) and 2: [start, end) is a run of one type. */
static int
make_plan (struct plan *p, const struct run *run, uint64_t end)
{
  struct layer *layer = p->layer;
  const uint64_t size = layer_cluster_size (layer);
  struct mapping_entry e;
  uint64_t want;
  int r;

  p->cluster = round_down (p->start, size);
  want = (round_up (end, size) - p->cluster) >> layer->geo.cluster_bits;

  if ((r = ensure_table (p->w, layer_l1_index (layer, p->start))) < 0
      || (r = mapping_get_entry (layer, p->start, &e)) < 0)
    return r;

  /* The rest of a compressed or shared cluster has to move as well.  So has,
   * in a raw data file, what may be left of old in a new cluster.
   */
  p->whole = !layer->geo.extended_l2 || run->type == RUN_COMPRESSED
    || (!layer->geo.has_data_file && (e.entry & QCOW2_L2_OFFSET)
        && !(e.entry & QCOW2_COPIED))
    || (layer->geo.data_file_raw && (uint32_t) e.bitmap == 0
        && !MUTANT (raw_first_touch));

  /* With extended L2, clusters of a run differ in what else they hold. */
  if (layer->geo.extended_l2)
    want = 1;
  if (has_own_place (layer, e.entry))
    r = plan_in_place (p, want, e.entry);
  else
    r = plan_new_place (p, want);
  if (r < 0)
    return r;

  p->stop = min64 (end, p->cluster + (p->clusters << layer->geo.cluster_bits));
  p->from = round_down (p->start, p->whole ? size : layer_subcluster_size (layer));
  p->to = round_up (p->stop, p->whole ? size : layer_subcluster_size (layer));
  /* The guest cannot see behind its disk, but whoever makes it larger can;
   * a data file ends where the disk does.
   */
  if (layer->geo.has_data_file && p->to > layer->size)
    p->to = p->stop > layer->size ? p->stop : layer->size;

  p->fill_is_zero = !layer->geo.extended_l2 || !p->whole || layer->geo.data_file_raw;
  p->fill_is_zero &= run->type == RUN_ZERO
    || (run->type == RUN_UNALLOCATED && layer_nothing_below (layer, p->from));
  if (layer->geo.has_data_file && p->fill_is_zero
      && (p->from != p->start || p->to != p->stop))
    p->place_is_zero = is_hole (p);
  return 0;
}

/* What the guest sees now between from and to.  Behind its disk, zeros. */
static int
read_fill (const struct plan *p, uint8_t *buf, uint64_t from, uint64_t to)
{
  const uint64_t end = min64 (to, p->layer->size);
  int r = 0;

  if (p->fill_is_zero || from >= end) {
    memset (buf, 0, to - from);
    return 0;
  }
  r = MUTANT (no_cow) ? 0 : layer_read (p->layer, buf, end - from, from);
  if (MUTANT (no_cow))
    memset (buf, 0, end - from);
  memset (buf + (end - from), 0, to - end);
  return r;
}

static int
write_fill (const struct plan *p, uint64_t from, uint64_t to)
{
  const uint64_t host = p->host + (from - p->cluster);
  CLEANUP_FREE uint8_t *buf = NULL;
  int r;

  if (from == to)
    return 0;
  if (p->fill_is_zero)
    return store_zero (p->layer->clusters, to - from, host, STORE_ZERO_PUNCH);
  buf = malloc (to - from);
  if (buf == NULL)
    return -ENOMEM;
  r = read_fill (p, buf, from, to);
  return r < 0 ? r : store_pwrite (p->layer->clusters, buf, to - from, host);
}

/* Step 3. */
static int
write_data (const struct plan *p, const uint8_t *data)
{
  struct store *store = p->layer->clusters;
  const uint64_t host = p->host + (p->start - p->cluster);
  CLEANUP_FREE uint8_t *merged = NULL;
  int r;

  if ((p->from == p->start && p->to == p->stop)
      || (p->fill_is_zero && (p->place_is_zero || MUTANT (no_fill))))
    return store_pwrite (store, data, p->stop - p->start, host);

  if (p->to - p->from <= MERGE_MAX
      && (merged = malloc (p->to - p->from)) != NULL) {
    if ((r = read_fill (p, merged, p->from, p->start)) < 0
        || (r = read_fill (p, merged + (p->stop - p->from), p->stop, p->to))
           < 0)
      return r;
    memcpy (merged + (p->start - p->from), data, p->stop - p->start);
    return store_pwrite (store, merged, p->to - p->from,
                         p->host + (p->from - p->cluster));
  }

  if ((r = write_fill (p, p->from, p->start)) < 0
      || (r = write_fill (p, p->stop, p->to)) < 0)
    return r;
  return store_pwrite (store, data, p->stop - p->start, host);
}

/* An entry that refers to metadata must not lead to its being freed. */
static bool
refers_to_metadata (const struct writer *w, uint64_t entry)
{
  uint64_t offset, length;

  return l2_entry_refers_to (&w->layer->geo, entry, &offset, &length)
    && metadata_contains (w, offset, length);
}

/* Step 4. */
static int
publish (const struct plan *p)
{
  struct layer *layer = p->layer;
  const uint64_t size = layer_cluster_size (layer);
  struct l2_table *t;
  int r;

  r = lock_table (p->w, layer_l1_index (layer, p->start), &t);
  if (r < 0)
    return r;
  r = commit_reserve_frees (p->w, p->clusters);
  for (uint64_t i = 0; r == 0 && p->allocated && i < p->clusters; i++) {
    uint64_t bitmap;

    if (refers_to_metadata (p->w, l2_table_get (t, layer_l2_index (layer,
                                                  p->cluster + i * size),
                                                &bitmap)))
      r = -EUCLEAN;
  }
  for (uint64_t i = 0; r == 0 && i < p->clusters; i++) {
    const uint64_t cluster = p->cluster + i * size;
    const uint32_t index = layer_l2_index (layer, cluster);
    uint64_t old, bitmap, offset, length;

    old = l2_table_get (t, index, &bitmap);
    if (p->allocated && l2_entry_refers_to (&layer->geo, old, &offset, &length))
      commit_free_later (p->w, offset, length, false);
    l2_entry_make_data (&layer->geo, p->host + i * size,
                        p->whole ? UINT32_MAX
                        : geometry_subcluster_mask (&layer->geo, cluster,
                                                    p->from, p->to),
                        &old, &bitmap);
    l2_table_set (t, index, old, bitmap);
  }
  if (r == 0)
    commit_mark_table (p->w, t);
  unlock_table (p->w);
  return r == -EUCLEAN ? fail_on_metadata (p->w) : r;
}

/* A write that failed may have left some of its bytes in a raw data file, where
 * the guest still sees zeros: so should whoever reads the file.  If this fails,
 * too, there is nothing left to try.
 */
static void
restore (const struct plan *p)
{
  if (p->layer->geo.data_file_raw && p->fill_is_zero && !MUTANT (no_restore))
    store_zero (p->layer->clusters, p->to - p->from,
                p->host + (p->from - p->cluster), STORE_ZERO_PUNCH);
}

/* Writes the first part of a range that is not mapped (or not any more).
 * *done is how much; 0: look again.
 */
static int
write_plan (struct layer *layer, const uint8_t *data, uint64_t count,
            uint64_t offset, uint64_t *done)
{
  struct writer *w = layer->writer;
  const uint64_t size = layer_cluster_size (layer);
  const uint64_t table_end =
    round_up (offset + 1, size << layer->geo.l2_bits);
  struct plan p = { .w = w, .layer = layer, .start = offset };
  struct range_lock lock;
  struct run run;
  int r = 0;

  *done = 0;
  count = min64 (count, table_end - offset);

  if (MUTANT (look_first))
    mapping_lookup (layer, offset, count, &run);
  pthread_mutex_lock (&w->lock);
  range_lock (&w->ranges, &w->lock, &lock,
              MUTANT (no_range_lock) ? UINT64_MAX : round_down (offset, size),
              round_up (offset + count, size));
  p.in_hole = data_holes_cover (&w->holes, round_down (offset, size),
                                round_up (offset + count, size));
  p.forgotten = w->holes.forgotten;
  pthread_mutex_unlock (&w->lock);

  if (!MUTANT (look_first))
    mapping_lookup (layer, offset, count, &run);
  if (run.type == RUN_INVALID)
    r = mapping_report (layer, offset, &run);
  else if (run.type != RUN_DATA || !run.copied) {
    r = make_plan (&p, &run, offset + run.length);
    if (r == 0 && MUTANT (publish_first))
      r = publish (&p);
    if (r == 0 && MUTANT (lock_across_io)) {
      LOCK_FOR_SCOPE (&w->lock);
      r = write_data (&p, data);
    }
    else if (r == 0)
      r = write_data (&p, data);
    if (r < 0 && p.allocated && MUTANT (publish_failed))
      p.allocated = publish (&p) < 0;
    if (r == 0 && !MUTANT (publish_first))
      r = publish (&p);
    if (r == 0)
      *done = p.stop - p.start;
    else
      restore (&p);
  }

  LOCK_FOR_SCOPE (&w->lock);
  if (r < 0 && p.allocated && !w->failed && !MUTANT (keep_after_failure))
    refcount_unalloc (w, p.host, p.clusters);
  if (r < 0)
    data_holes_forget (&w->holes);
  else if (p.hole_end)
    data_holes_found (&w->holes, p.hole_start, p.hole_end, p.forgotten);
  range_unlock (&w->ranges, &lock);
  return r;
}

/* After writing in place.  If since the look-up entries have let go of their
 * places, this may have been one, and somebody may have found a hole there
 * before it was written to.
 */
static void
check_holes (struct writer *w, uint64_t forgotten)
{
  /* Adding nothing, because who changes it after that also sees what was
   * written; after merely reading it, only perhaps.
   */
  if (atomic_fetch_add (&w->holes.forgotten, 0) != forgotten
      && !MUTANT (hole_under_write)) {
    LOCK_FOR_SCOPE (&w->lock);
    data_holes_forget (&w->holes);
  }
}

/* Writes a range.  The caller counts as a request in flight. */
static int
write_range (struct layer *layer, const uint8_t *data, uint64_t count,
             uint64_t offset)
{
  struct writer *w = layer->writer;

  while (count > 0) {
    struct run run;
    uint64_t done, forgotten;
    int r;

    forgotten = w->holes.forgotten;
    mapping_lookup (layer, offset, count, &run);
    if (run.type == RUN_INVALID)
      return mapping_report (layer, offset, &run);
    if (run.type == RUN_DATA && (run.copied || MUTANT (write_shared))) {
      done = run.length;
      if ((r = check_target (layer, run.host, run.length)) == 0)
        r = store_pwrite (layer->clusters, data, run.length, run.host);
      if (layer->geo.has_data_file)
        check_holes (w, forgotten);
    }
    else
      r = write_plan (layer, data, run.length, offset, &done);
    if (r < 0)
      return r;

    data += done;
    offset += done;
    count -= done;
  }
  return 0;
}

/* After a request: commits if too much waits for that. */
static int
relieve (struct writer *w)
{
  size_t bytes, limit;
  bool wanted;

  table_cache_usage (w->layer->tables, &bytes, &limit);
  {
    LOCK_FOR_SCOPE (&w->lock);
    wanted = (w->dirty_bytes > limit / 2 && bytes > limit / 2)
      || w->unlinked_bytes > FREED_MAX;
    if (!wanted && w->freed_bytes)
      commit_reap (w);
  }
  return wanted ? commit (w) : 0;
}

/* Frees what is waiting to be free, because space has run out.  Returns
 * whether there was something.  The caller is not in flight.
 */
static bool
make_room (struct writer *w)
{
  {
    LOCK_FOR_SCOPE (&w->lock);
    if (w->freed_bytes == 0)
      return false;
  }
  /* The first commit makes it durable, after which requests have to end that
   * were under way; there is nothing that says when they do.
   */
  for (unsigned i = 0; i < 50; i++) {
    if (commit (w) < 0)
      return false;
    {
      LOCK_FOR_SCOPE (&w->lock);
      commit_reap (w);
      if (w->freed_bytes == 0)
        return true;
    }
    nanosleep (&(struct timespec) { .tv_nsec = 2000000 }, NULL);
  }
  return true;
}

/* Says so once a session.  Where the image can grow, nothing but the host's
 * file system can be full.
 */
static void
report_no_space (struct layer *layer)
{
  struct writer *w = layer->writer;

  if (!w->can_grow && !atomic_exchange (&w->said_no_space, true))
    report_error ("%s: no cluster is free, and the image cannot grow: it is on "
                  "a device, or there is a filter or a server between qcow2ext "
                  "and the file", layer->file->name);
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
    struct inflight_ticket ticket;

    if ((r = enter_change (layer, count, offset, &ticket)) < 0)
      return r;
    r = write_range (layer, buf, count, offset);
    inflight_leave (&w->inflight, ticket);
  } while (r == -ENOSPC && !tried && (tried = true) && make_room (w));
  if (r == -ENOSPC)
    report_no_space (layer);
  if (r < 0)
    return r;
  return w->dirty_bytes || w->freed_bytes ? relieve (w) : 0;
}

/* --- zeroing and trimming --- */

/* A zero or trim request. */
struct zeroing {
  struct layer *layer;
  bool unmap;                   /* space may be given back */
  bool fast;                    /* no zeros may be written */
  bool trim;                    /* it does not have to become zero */
};

static unsigned
store_flags (const struct zeroing *z)
{
  return (z->unmap ? STORE_ZERO_PUNCH : 0) | (z->fast ? STORE_ZERO_FAST : 0);
}

/* Zeroes a range where it lies in the data or image file. */
static int
zero_in_place (const struct zeroing *z, uint64_t count, uint64_t host)
{
  struct store *store = z->layer->clusters;
  int r;

  if (z->trim && !z->layer->geo.data_file_raw) {
    r = store_discard (store, count, host);
    return r == -ENOTSUP ? 0 : r;
  }
  return store_zero (store, count, host, store_flags (z));
}

/* Zeroes a range by writing. */
static int
zero_by_writing (const struct zeroing *z, uint64_t count, uint64_t offset)
{
  const uint64_t chunk = min64 (count, UINT64_C (2) << 20);
  CLEANUP_FREE uint8_t *zeros = NULL;
  int r;

  if (z->trim)
    return 0;
  if (z->fast)
    return -ENOTSUP;
  zeros = calloc (1, chunk);
  if (zeros == NULL)
    return -ENOMEM;
  for (uint64_t n; count > 0; count -= n, offset += n) {
    n = min64 (count, chunk);
    if ((r = write_range (z->layer, zeros, n, offset)) < 0)
      return r;
  }
  return 0;
}

/* Zeroes whole units (the last one may be cut short by the disk's end) of one
 * L2 table by changing entries.  *done is how much was dealt with; 0 means
 * that the first cluster needs writing.
 */
static int
zero_entries (const struct zeroing *z, uint64_t count, uint64_t offset,
              uint64_t *done)
{
  struct layer *layer = z->layer;
  struct writer *w = layer->writer;
  const uint64_t size = layer_cluster_size (layer);
  const uint64_t end = offset + count;
  struct l2_table *t;
  bool changed = false;
  int r;

  *done = 0;
  if ((r = ensure_table (w, layer_l1_index (layer, offset))) < 0
      || (r = lock_table (w, layer_l1_index (layer, offset), &t)) < 0)
    return r;
  r = commit_reserve_frees (w, (round_up (end, size)
                                - round_down (offset, size)) / size);

  for (uint64_t pos = offset, next; r == 0 && pos < end; pos = next) {
    const uint64_t cluster = round_down (pos, size);
    const uint32_t index = layer_l2_index (layer, pos);
    const uint32_t mask =
      end >= layer->size && cluster + size > layer->size && pos == cluster
      ? UINT32_MAX : geometry_subcluster_mask (&layer->geo, cluster, pos, end);
    uint64_t old, old_bitmap, entry, bitmap, old_host, host, length;

    next = min64 (cluster + size, end);
    entry = old = l2_table_get (t, index, &old_bitmap);
    bitmap = old_bitmap;
    if (!l2_entry_make_zero (&layer->geo, mask,
                             has_own_place (layer, old) && !z->unmap,
                             layer_nothing_below (layer, cluster), &entry,
                             &bitmap))
      break;
    if (entry != old || bitmap != old_bitmap) {
      if (l2_entry_refers_to (&layer->geo, old, &old_host, &length)
          && !(l2_entry_refers_to (&layer->geo, entry, &host, &length)
               && host == old_host)) {
        if (refers_to_metadata (w, old)) {
          r = -EUCLEAN;
          break;
        }
        l2_entry_refers_to (&layer->geo, old, &old_host, &length);
        commit_free_later (w, old_host, length, false);
      }
      l2_table_set (t, index, entry, bitmap);
      changed = true;
    }
    *done = next - offset;
  }
  if (changed) {
    commit_mark_table (w, t);
    if (!MUTANT (hole_after_zero))
      data_holes_forget (&w->holes);
  }
  unlock_table (w);

  /* The data file's space.  Nobody sees what is there any more. */
  if (r == 0 && layer->geo.has_data_file && z->unmap && changed)
    store_discard (layer->clusters, *done, offset);
  return r == -EUCLEAN ? fail_on_metadata (w) : r;
}

/* Zeroes a range in a raw data file.  Where nothing is mapped, the file may
 * hold anything, so that the whole of each unit is zeroed.
 */
static int
zero_raw (const struct zeroing *z, const struct run *run, uint64_t offset)
{
  struct layer *layer = z->layer;
  uint64_t from = offset, to = offset + run->length;

  if (run->type != RUN_DATA) {
    from = round_down (from, layer_subcluster_size (layer));
    to = min64 (round_up (to, layer_subcluster_size (layer)), layer->size);
  }
  return zero_in_place (z, to - from, from);
}

/* Zeroes the first part of a run, under the range lock.  *done is how much. */
static int
zero_run (const struct zeroing *z, const struct run *run, uint64_t offset,
          uint64_t *done)
{
  struct layer *layer = z->layer;
  const uint64_t unit = layer_subcluster_size (layer);
  const uint64_t end = offset + run->length;
  const uint64_t whole_end = end == layer->size ? end : round_down (end, unit);
  const uint64_t next_unit = round_up (offset + 1, unit);
  int r;

  if (run->type == RUN_INVALID)
    return mapping_report (layer, offset, run);

  *done = run->length;
  if (layer->geo.data_file_raw && !MUTANT (raw_zero_in_table)
      && !(MUTANT (raw_trim_in_table) && z->trim))
    return zero_raw (z, run, offset);
  if (run->type == RUN_UNALLOCATED && layer_nothing_below (layer, offset))
    return 0;

  if (offset % unit == 0 && whole_end > offset) {
    r = zero_entries (z, whole_end - offset, offset, done);
    if (r < 0 || *done)
      return r;
    *done = min64 (layer_cluster_size (layer), whole_end - offset);
    return 1;                   /* by writing */
  }

  /* Part of a unit. */
  *done = min64 (end, next_unit) - offset;
  if (run->type == RUN_ZERO)
    return 0;
  if (run->type == RUN_DATA && run->copied) {
    if ((r = check_target (layer, run->host, *done)) < 0)
      return r;
    return zero_in_place (z, *done, run->host);
  }
  return 1;
}

static int
zero_range (const struct zeroing *z, uint64_t count, uint64_t offset)
{
  struct layer *layer = z->layer;
  struct writer *w = layer->writer;
  const uint64_t size = layer_cluster_size (layer);

  while (count > 0) {
    const uint64_t table_end = round_up (offset + 1, size << layer->geo.l2_bits);
    uint64_t n = min64 (count, table_end - offset), done = 0;
    struct range_lock lock;
    struct run run;
    int r;

    if (MUTANT (zero_looks_first))
      mapping_lookup (layer, offset, n, &run);
    pthread_mutex_lock (&w->lock);
    range_lock (&w->ranges, &w->lock, &lock, round_down (offset, size),
                round_up (offset + n, size));
    pthread_mutex_unlock (&w->lock);

    /* Whoever was allocating here has finished: look only now. */
    if (!MUTANT (zero_looks_first))
      mapping_lookup (layer, offset, n, &run);
    r = zero_run (z, &run, offset, &done);

    pthread_mutex_lock (&w->lock);
    range_unlock (&w->ranges, &lock);
    pthread_mutex_unlock (&w->lock);

    if (r == 1)
      r = zero_by_writing (z, done, offset);
    if (r < 0)
      return r;
    offset += done;
    count -= done;
  }
  return 0;
}

/* Can all of the range become zero without writing zeros? */
static int
check_fast (const struct zeroing *z, uint64_t count, uint64_t offset)
{
  struct layer *layer = z->layer;
  const uint64_t unit = layer_subcluster_size (layer);

  for (struct run run; count > 0; offset += run.length, count -= run.length) {
    const uint64_t end = offset + count;
    const bool partial =
      offset % unit || (end % unit && end != layer->size);

    mapping_lookup (layer, offset, count, &run);
    if (run.type == RUN_INVALID)
      return mapping_report (layer, offset, &run);
    if (layer->geo.data_file_raw || run.type == RUN_ZERO
        || (run.type == RUN_UNALLOCATED && layer_nothing_below (layer, offset)))
      continue;
    /* What has no flag for it, and parts of what is not ours alone. */
    if ((layer->header.version < 3 && !layer_nothing_below (layer, offset))
        || (partial && !(run.type == RUN_DATA && run.copied)))
      return -ENOTSUP;
    if (layer->geo.extended_l2 && run.type == RUN_COMPRESSED
        && run.length < layer_cluster_size (layer))
      return -ENOTSUP;
  }
  return 0;
}

static int
zero_or_trim (const struct zeroing *z, uint64_t count, uint64_t offset)
{
  struct layer *layer = z->layer;
  struct writer *w = layer->writer;
  bool tried = false;
  int r;

  if ((r = begin (layer)) < 0)
    return r;
  if (z->fast && (r = check_fast (z, count, offset)) < 0)
    return r;
  do {
    struct inflight_ticket ticket;

    if ((r = enter_change (layer, count, offset, &ticket)) < 0)
      return r;
    r = zero_range (z, count, offset);
    inflight_leave (&w->inflight, ticket);
  } while (r == -ENOSPC && !tried && (tried = true) && make_room (w));
  if (r == -ENOSPC)
    report_no_space (layer);
  if (r < 0)
    return r;
  return relieve (w);
}

int
layer_zero (struct layer *layer, uint64_t count, uint64_t offset,
            unsigned flags)
{
  const struct zeroing z = {
    .layer = layer,
    .unmap = flags & STORE_ZERO_PUNCH,
    .fast = flags & STORE_ZERO_FAST,
  };

  return zero_or_trim (&z, count, offset);
}

int
layer_trim (struct layer *layer, uint64_t count, uint64_t offset)
{
  const struct zeroing z = { .layer = layer, .unmap = true, .trim = true };

  return zero_or_trim (&z, count, offset);
}
