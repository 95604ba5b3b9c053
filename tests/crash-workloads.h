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

#endif /* CRASH_WORKLOADS_H */
