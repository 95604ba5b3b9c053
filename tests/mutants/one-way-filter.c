/* qcow2ext: a filter that proves the path to the file in one direction only.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Linked with the filter's sources, compiled with QCOW2_MUTANTS, it shows that
 * the tests of the proof notice (test-proof-mutant.sh).
 */

#include "base/mutant.h"

const char *qcow2_mutant = "one_way_proof";
