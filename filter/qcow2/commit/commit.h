/* qcow2ext: the order in which metadata reaches the disk.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * This is the only place that orders metadata writes (but for new refcount
 * blocks and tables, which refcount-blocks.c and refcount-grow.c link on the
 * spot).  It knows nobody whose changes it orders: they register as sources.
 * One commit at a time does:
 *
 *   collect  the sources copy all changes that are complete
 *   NEW      raised counts, new L2 tables that nothing refers to yet; then
 *            both files are flushed: guest data, too, is durable
 *   POINTERS L2 entries and L1 entries; flush
 *   done     the sources hear of it; what was let go of may be used again as
 *            soon as the requests have ended that may still look at it
 *
 * A source that has much to write does so in rounds: all of this happens for a
 * part of it, and again for the next one.  Each round has all counts that its
 * pointers need, for these are collected last.
 *
 * What completes after collect waits for the next commit: its data may have
 * missed the flush of the first stage.  A commit that fails to write tells the
 * sources so, and the next one tries again: each stage by itself leaves the
 * image sound.  A flush that fails ends all writing (health.h).
 *
 * The lock guards whose turn it is.  It is not held while a commit runs.
 */

#ifndef QCOW2_COMMIT_H
#define QCOW2_COMMIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "commit/batch.h"
#include "commit/health.h"

/* How far a commit has come.  COMMIT_NEW: the first stage is durable, and of
 * the second any part may be on disk.
 */
enum commit_progress { COMMIT_NOTHING, COMMIT_NEW, COMMIT_ALL };

#define COMMIT_MORE 1

struct commit_source {
  /* Copies all complete changes into the batch; what changes later is the next
   * commit's.  Returns 0 or -errno, and then has taken nothing.  COMMIT_MORE:
   * that was a part, and it wants to be called again when done has been.
   */
  int (*collect) (void *self, struct batch *batch);

  /* Hears how far those changes came, if collect succeeded.  What is not ALL
   * has to be collected again; if there was more, this commit does not do so.
   */
  void (*done) (void *self, enum commit_progress progress);

  /* Would collect copy something? */
  bool (*is_dirty) (void *self);
  void *self;
};

#define COMMIT_SOURCES 4

struct commit {
  struct health *health;
  struct store *file;           /* the image file */
  struct store *data;           /* guest data, if not in it; or NULL */
  struct report_limit *limit;
  struct commit_source source[COMMIT_SOURCES];
  unsigned sources;

  pthread_mutex_t lock;
  pthread_cond_t finished;
  bool running;
  uint64_t nr_started, nr_done;
  int result;                   /* of the last one */
};

void commit_init (struct commit *c, struct health *health,
                  struct store *file, struct store *data,
                  struct report_limit *limit);
void commit_destroy (struct commit *c);

/* Adds a source, before the first commit.  The order is that of collecting;
 * done is called in the opposite order.
 */
void commit_register (struct commit *c, const struct commit_source *source);

/* Makes everything durable that was complete before the call.  Those who come
 * while a commit runs share the next one.  The caller must hold no lock of the
 * engine, nor a range lock that a write of its own would need.
 */
int commit_run (struct commit *c);

/* Are there changes that a commit would write? */
bool commit_is_dirty (struct commit *c);

#endif /* QCOW2_COMMIT_H */
