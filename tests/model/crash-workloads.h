/* qcow2ext: images and workloads for the crash tests.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef CRASH_WORKLOADS_H
#define CRASH_WORKLOADS_H

#include "crash.h"

/* Ended by one without a name. */
extern const struct image_spec crash_specs[];
const struct image_spec *crash_spec (const char *name);

/* Workloads that lead to one place each, for every image that they make sense
 * with.  Begins with a cursor of zeros; returns false after the last one.
 */
struct directed_cursor {
  unsigned place, spec, variant;
};
bool crash_directed (struct directed_cursor *at, struct workload *workload);

/* Workloads where one request is stopped at a point of its way while another
 * one is done: all pairs of kinds of requests, on the same cluster, the same
 * sectors, neighbours, and with another L2 table, in every image.  The number
 * is below crash_pairs (); false: this one makes no sense.  The first half of
 * the points are changes and flushes, the other one reads; who comes to one
 * that is not met is done with that half.
 */
#define PAIR_POINTS 128
unsigned crash_pairs (void);
bool crash_pair (unsigned number, unsigned point, struct workload *workload);

/* All histories of three requests on two neighbouring clusters, or subclusters,
 * of each kind that an image has: see short-histories.c.  The number is below
 * crash_shorts (); false: one that another one is the same as.
 */
uint64_t crash_shorts (void);
bool crash_short (uint64_t number, struct workload *workload);

#endif /* CRASH_WORKLOADS_H */
