/* qcow2ext: rules that the tests break on purpose.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A test that looks for lost data proves that it finds some: tests/
 * test-unit-mutants compiles the engine with QCOW2_MUTANTS, breaks one rule
 * at a time and expects to be told so.  Anywhere else this is nothing.
 */

#ifndef QCOW2_MUTANT_H
#define QCOW2_MUTANT_H

#ifdef QCOW2_MUTANTS
#include <string.h>
extern const char *qcow2_mutant; /* NULL: none */
#define MUTANT(name) (qcow2_mutant && strcmp (qcow2_mutant, #name) == 0)
#else
#define MUTANT(name) 0
#endif

#endif /* QCOW2_MUTANT_H */
