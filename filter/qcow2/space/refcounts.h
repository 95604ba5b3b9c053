/* qcow2ext: refcounts of host clusters, in memory and on disk.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * In memory, a count is raised when its cluster is allocated and lowered when
 * nothing on disk and no request under way refers to it any more.  So what is
 * free in memory may be allocated at once, and a block may be written at any
 * time: at worst it leaks clusters.
 *
 * New blocks and a larger table are rare.  They are linked on the spot
 * (refcount-blocks.c, refcount-grow.c), each level made durable before what
 * refers to it, so that a commit never meets a cluster whose count could not be
 * stored.
 *
 * The space lock, of this struct, guards all of it, the end of the file
 * (file-end.h), and what the allocator does.  It is held while blocks are read
 * and, but for those that are made ahead, linked.  Under it only the metadata
 * map's lock is taken.  All functions but refcounts_make_ahead and those of the
 * source are called with the space lock held, or before the first change.
 */

#ifndef QCOW2_REFCOUNTS_H
#define QCOW2_REFCOUNTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "commit/commit.h"
#include "commit/health.h"
#include "disk/format.h"
#include "space/file-end.h"
#include "space/metadata-map.h"

/* A refcount block in memory.  One that is neither dirty nor in a commit is
 * clean: it is in the list of those that may go.
 */
struct refblock {
  uint64_t number;              /* of its slot */
  uint64_t host;                /* in the image file */
  bool is_dirty, in_commit;
  struct refblock *next_dirty, *next_in_commit;
  struct refblock *newer, *older; /* in the list, by last use */
  uint64_t dirty[QCOW2_MAX_CLUSTER_SECTORS / 64]; /* by sector */
  uint8_t data[];
};

/* New blocks.  They lie one behind the other where the first one begins to
 * count, so that it counts all of them.
 */
struct new_range {
  uint64_t first, count;        /* their numbers */
  uint64_t cluster;             /* where they are */
};

struct refcounts {
  pthread_mutex_t lock;         /* the space lock */
  struct health *health;
  struct store *file;
  struct metadata_map *metadata;
  struct header *header;        /* learns where the table is */
  struct file_end end;

  be64 *table;
  uint64_t entries;             /* of the table */
  uint64_t offset;              /* of the table, bytes */
  uint32_t clusters;            /* of the table */
  struct refblock **block;      /* a slot for each entry */
  size_t blocks_cached;
  struct refblock *newest, *oldest; /* of the clean ones */
  struct refblock *dirty, *in_commit;
  struct new_range making;      /* blocks that are made ahead; count 0: none */
  bool ahead_failed;            /* no more of that in this session */
  uint64_t missing;             /* see first_missing */
  pthread_cond_t made;          /* making has ended */
  uint64_t free_hint;           /* no free cluster is below (number) */
  uint64_t cursor;              /* see byte-allocator.h; 0: none */
};

void refcounts_init (struct refcounts *rc, struct health *health,
                     struct metadata_map *metadata,
                     _Atomic uint64_t *file_size);
void refcounts_destroy (struct refcounts *rc);

/* Reads the table, at the beginning of a session; 0 or -errno.  Close undoes
 * that, and is harmless if it was not open.
 */
int refcounts_open (struct refcounts *rc);
void refcounts_close (struct refcounts *rc);

/* The count of a host cluster.  May read a block; 0 or -errno. */
int refcounts_get (struct refcounts *rc, uint64_t cluster, uint64_t *count);

/* Something refers to a host range (bytes), which is about to be replaced: if
 * a cluster there counts as free, the allocator would hand it out, so that the
 * image is marked corrupt.  Takes the space lock; may read a block.  0 or
 * -errno.
 */
int refcounts_check_used (struct refcounts *rc, uint64_t offset,
                          uint64_t length);

/* Takes one reference from each cluster of a host range (bytes).  Closes the
 * cursor there.  0 or -errno, and then none was taken, or writing has ended.
 */
int refcounts_drop (struct refcounts *rc, uint64_t offset, uint64_t length);

/* Nothing more is put into a cluster of a host range (bytes) that holds
 * compressed data.  To be called before a count there is lowered, or looked at
 * to see whether the cluster may be given back.
 */
void refcounts_close_cursor (struct refcounts *rc, uint64_t offset,
                             uint64_t length);

/* Sets the counts of all clusters of the file to the given ones.  -ENOTSUP if
 * that takes more than changing counts.
 */
int refcounts_repair (struct refcounts *rc, const uint32_t *counts,
                      uint64_t clusters);

/* Drops clean blocks if there are many.  A block that the caller has may go. */
void refcounts_trim_cache (struct refcounts *rc);

/* For commit; these take the space lock. */
struct commit_source refcounts_source (struct refcounts *rc);

/* Are blocks to be made ahead now?  If so, the caller gives up the space lock
 * and calls refcounts_make_ahead, which takes it.
 */
bool refcounts_begin_ahead (struct refcounts *rc);
void refcounts_make_ahead (struct refcounts *rc);

/* Waits until that has ended; the space lock is given up meanwhile.  For what
 * got -EAGAIN.
 */
void refcounts_wait_made (struct refcounts *rc);

/* --- for this room only --- */

static inline uint64_t
refcounts_cluster_size (const struct refcounts *rc)
{
  return UINT64_C (1) << rc->end.cluster_bits;
}

/* log2 of the counts in a block. */
static inline unsigned
refcounts_block_bits (const struct refcounts *rc)
{
  return rc->end.cluster_bits + 3 - rc->header->refcount_order;
}

/* Brings block number i into memory.  *result is NULL if there is none. */
int refcounts_get_block (struct refcounts *rc, uint64_t i,
                         struct refblock **result);

/* Makes block number i, which is not there, and perhaps some that follow.
 * -EAGAIN if others are being made.
 */
int refcounts_create_block (struct refcounts *rc, uint64_t i);

/* Makes the table larger, so that it has an entry for block "needed", and that
 * block.
 */
int refcounts_grow_table (struct refcounts *rc, uint64_t needed);

/* May a cluster be taken whose count says that it is free?  Says why not; NULL:
 * it may.  The second one marks the image corrupt if not; 0 or -EIO.
 */
const char *refcounts_why_not_free (const struct refcounts *rc,
                                    uint64_t cluster);
int refcounts_check_free (struct refcounts *rc, uint64_t cluster);

uint64_t refblock_get (const struct refcounts *rc, const struct refblock *b,
                       uint64_t index);
/* Changes a count; the second one marks the block as changed, too. */
void refblock_put (const struct refcounts *rc, struct refblock *b,
                   uint64_t index, uint64_t count);
void refblock_set (struct refcounts *rc, struct refblock *b, uint64_t index,
                   uint64_t count);
struct refblock *refblock_new (const struct refcounts *rc, uint64_t number,
                               uint64_t host);
/* Puts a new block, which is clean, into its slot. */
void refcounts_insert_block (struct refcounts *rc, struct refblock *b);
void refblock_mark_dirty (struct refcounts *rc, struct refblock *b);

#endif /* QCOW2_REFCOUNTS_H */
