/* qcow2ext: a filter that proves the path to the file in one direction only.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Linked with the copies of the filter that have rules to be broken, it shows
 * that the tests of the proof notice (test-proof-mutant.sh).
 */

#include "mutant.h"

const char *qcow2_mutant = "one_way_proof";

void
sched_point (const char *name)
{
  (void) name;
}
