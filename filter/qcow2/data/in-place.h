/* qcow2ext: reads and writes in place, and what has to wait for them.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A request in place looks its cluster up and then reads or writes there, with
 * no lock.  When the cluster is zeroed meanwhile and keeps its place (that in a
 * data file is always the same; one in the image may stay allocated), a write
 * can land there at any later time, and a read can find what is there then.  So
 * a place has a grace period as a host cluster has that was let go of: the
 * next request to write to the cluster, which puts something around its data
 * and then publishes the entry, first waits for the requests in place that had
 * begun when the cluster was zeroed.
 *
 *   zeroed, no request in place under way  nothing to wait for
 *   zeroed, some are under way             the range is noted
 *   first write to a part of the range     waits; then the range is forgotten
 *
 * Requests in place count themselves by epochs of their own, and those that
 * change entries by others, so that one of these can wait for all of those with
 * its range locked: what it waits for does I/O, and takes no range lock.  The
 * one noted range spans all that were zeroed, so that some wait that need not,
 * once.
 *
 * The lock is taken after a range lock, with no other but that of the epochs,
 * and is not held during I/O or waiting.
 */

#ifndef QCOW2_IN_PLACE_H
#define QCOW2_IN_PLACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "space/epochs.h"

struct in_place {
  struct epochs epochs;         /* of requests in place */
  pthread_mutex_t lock;
  pthread_cond_t ended;         /* a request has; while there are waiters */
  atomic_uint waiters;
  atomic_bool any;              /* the range is not empty */
  uint64_t start, end;          /* guest range that was zeroed, bytes */
  uint64_t zeroed;              /* how many times it grew */
};

void in_place_init (struct in_place *ip);
void in_place_destroy (struct in_place *ip);

/* Around the look-up and the I/O.  The caller takes no range lock between
 * the two.
 */
struct epoch_ticket in_place_enter (struct in_place *ip);
void in_place_leave (struct in_place *ip, struct epoch_ticket ticket);

/* Clusters of a guest range (bytes) have just become zeros and may have kept
 * their places.  The caller holds the range lock on them.
 */
void in_place_zeroed (struct in_place *ip, uint64_t start, uint64_t end);

/* Waits until no request in place can reach any more what was zeroed of a
 * guest range (bytes), on which the caller holds the range lock.
 */
void in_place_wait (struct in_place *ip, uint64_t start, uint64_t end);

#endif /* QCOW2_IN_PLACE_H */
