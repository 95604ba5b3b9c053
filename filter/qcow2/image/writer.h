/* qcow2ext: the state of an image that is written to.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Shared by write.c (guest requests), refcount.c (allocation), commit.c (the
 * order of metadata writes) and session.c (first change, idle, end).
 *
 * Lock order: bitmap_lock, commit turn (writer->committing), writer->lock, the table
 * cache's load locks, the table cache's lock.  writer->lock is never held
 * across guest data I/O; it is held while refcount blocks are read.
 */

#ifndef QCOW2_WRITER_H
#define QCOW2_WRITER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "data/data-holes.h"
#include "image/image.h"
#include "space/inflight.h"
#include "map/table-cache.h"

/* Host ranges that were let go of: each cluster they touch loses one
 * reference when their time has come.
 */
struct freed {
  uint64_t offset, length;      /* bytes */
  bool table;                   /* a table: that it is metadata is right */
};
struct freed_list {
  struct freed *item;
  size_t count, room;
};

/* A refcount block in memory. */
struct refblock {
  uint64_t host;                /* in the image file */
  bool is_dirty, busy;
  struct refblock *dirty_next, *busy_next;
  uint64_t used;                /* for eviction: the last use's number */
  uint64_t dirty[QCOW2_MAX_CLUSTER_SECTORS / 64]; /* by sector */
  uint8_t data[];
};

/* A set of host clusters, by number. */
struct cluster_set {
  uint64_t *slot;               /* 0: empty; else number + 1 */
  size_t room, count;           /* room is 0 or a power of 2 */
};

/* Are the bitmaps that record changes marked in use on disk? */
enum bitmaps_state {
  BITMAPS_CLOSED,               /* none is: to be changed before a change */
  BITMAPS_OPEN,                 /* all are */
  BITMAPS_UNCLEAR,              /* between the two, or something failed */
};

struct writer {
  struct layer *layer;
  const struct image_write_env *env;
  pthread_mutex_t lock;         /* guards all that follows, but atomics */

  atomic_bool started;          /* the first change was prepared for */
  pthread_mutex_t start_lock;   /* held while it is */
  int start_error;              /* what that failed with */
  atomic_bool failed;           /* nothing is written any more */
  atomic_bool refused;          /* nor was it: writing could not begin */
  bool can_grow;                /* the image file can be resized */
  atomic_bool said_no_space;    /* the log says that it cannot */
  atomic_bool active;           /* written to since settling last looked */
  atomic_bool settled;          /* nothing was written since settling */

  struct inflight inflight;     /* has locks of its own */
  struct range_locks ranges;
  struct data_holes holes;

  /* Refcounts. */
  be64 *reftable;
  uint64_t reftable_entries;
  uint64_t reftable_offset;
  uint32_t reftable_clusters;
  struct refblock **refblock;   /* a slot for each entry of the table */
  size_t refblocks_cached;
  uint64_t use_number;
  struct refblock *dirty_refblocks;
  uint64_t free_hint;           /* no free cluster is below (number) */
  uint64_t start_size;          /* of the file when we began, bytes */
  uint64_t start_end;           /* the same, clusters */
  uint64_t end;                 /* clusters in use or the file at start */
  uint64_t virgin;              /* clusters from here on read as zeros */
  struct cluster_set metadata;  /* changes under the table cache's lock too */
  struct cluster_set snapshot_tables; /* those of metadata that hold the L2
                                   tables of snapshots */

  /* Dirty tables. */
  struct l2_table *dirty_tables;
  _Atomic size_t dirty_bytes;   /* in memory, of dirty tables */
  uint64_t *l1_dirty;           /* a bit for each sector of the L1 table */
  bool l1_is_dirty;

  /* What was let go, in the order of its life. */
  struct freed_list unlinked;   /* the change is in memory only */
  struct freed_list durable;    /* the change is on disk */
  struct freed_list grace;      /* waiting for requests to end */
  unsigned grace_set;
  bool reaping;                 /* somebody works on the third */
  uint64_t unlinked_bytes;      /* in the first */
  _Atomic uint64_t freed_bytes; /* in all three */

  /* Bitmaps that record changes; see bitmap.c. */
  bool tracking;
  atomic_int bitmaps_open;      /* enum bitmaps_state */
  pthread_mutex_t bitmap_lock;

  /* Commits. */
  bool committing;
  uint64_t commits_started, commits_done;
  int commit_result;
  pthread_cond_t commit_done;
};

/* --- refcount.c: allocation.  All under writer->lock. --- */

int refcount_open (struct writer *w);
void refcount_close (struct writer *w);

/* The count of a host cluster. */
int refcount_get (struct writer *w, uint64_t cluster, uint64_t *count);

/* Allocates a run of 1 to want clusters, with a count of 1.  *offset in
 * bytes; *got clusters; *zero: they are known to read as zeros.  -ENOSPC if
 * the file cannot grow and has no free cluster.
 */
int refcount_alloc (struct writer *w, uint64_t want, uint64_t *offset,
                    uint64_t *got, bool *zero);

/* Finds the last free cluster of a file that cannot grow, without taking it.
 * *offset in bytes.
 */
int refcount_last_free (struct writer *w, uint64_t *offset);

/* Takes back an allocation that nothing refers to, in memory or on disk. */
void refcount_unalloc (struct writer *w, uint64_t offset, uint64_t clusters);

/* Takes one reference from each cluster of a host range. */
int refcount_release (struct writer *w, uint64_t offset, uint64_t length);

/* A count in a refcount block of 1 << order bits a count. */
uint64_t refcount_decode (const void *block, unsigned order, uint64_t index);

/* Sets the counts of all clusters of the file to the given ones.  -ENOTSUP if
 * that takes more than changing counts.
 */
int refcount_repair (struct writer *w, const uint32_t *counts,
                     uint64_t clusters);

/* Drops clean refcount blocks if there are many. */
void refcount_trim_cache (struct writer *w);

/* Is one of the clusters of the host range metadata in use?  Takes the table
 * cache's lock for reading.
 */
bool metadata_contains (const struct writer *w, uint64_t offset,
                        uint64_t length); /* the same, without the lock */
bool metadata_overlaps (struct writer *w, uint64_t offset, uint64_t length);
int metadata_add (struct writer *w, uint64_t cluster);
void metadata_remove (struct writer *w, uint64_t cluster);
bool is_snapshot_table (const struct writer *w, uint64_t cluster);

/* --- commit.c --- */

/* Makes everything durable that was complete before the call.  Takes
 * writer->lock itself.  The caller must not hold a range lock that an
 * allocation of its own would need.
 */
int commit (struct writer *w);

/* Notes that a host range, of a table or of guest data, is no longer referred
 * to by what is in memory.
 */
int commit_free_later (struct writer *w, uint64_t offset, uint64_t length,
                       bool table);

/* Room for n more calls of commit_free_later, which then cannot fail. */
int commit_reserve_frees (struct writer *w, size_t n);

/* Marks a table, or an L1 entry, as changed.  Under both locks. */
void commit_mark_table (struct writer *w, struct l2_table *t);
void commit_mark_l1 (struct writer *w, uint32_t l1_index);
void commit_mark_refblock (struct writer *w, struct refblock *b);

/* Lets go of what may be let go of by now.  Under writer->lock, which is
 * released while space is given back to the file system; meanwhile other
 * calls do nothing.
 */
void commit_reap (struct writer *w);

/* Are there changes that a commit would write? */
bool commit_is_dirty (const struct writer *w);

/* Writes a few bytes of the header within one sector, and makes it durable. */
int commit_patch_header (struct writer *w, uint64_t offset, const void *data,
                         size_t len);

/* --- session.c --- */

/* Makes the writer of a layer that may be written to, layer->writer.  Returns
 * 0 or -errno.
 */
int writer_open (struct layer *layer, const struct image_write_env *env);
void writer_close (struct layer *layer);

/* Stops all writing, for good.  "corrupt": the image is to blame, and is
 * marked so.  Reports why.  Returns -EIO.
 */
int writer_fail (struct writer *w, bool corrupt, const char *why);

/* Prepares for the first change of a session, once. */
int writer_start (struct writer *w);

/* See image_flush and image_settle. */
int layer_flush (struct layer *layer);
int layer_settle (struct layer *layer, bool idle);

#endif /* QCOW2_WRITER_H */
