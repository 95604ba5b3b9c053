/* qcow2ext: rules that the tests break on purpose, and places where they may
 * stop a thread.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Before all else in each copy of the sources that apply.py makes.  A program of
 * these copies defines both.
 */

#ifndef QCOW2_MUTANT_H
#define QCOW2_MUTANT_H

extern const char *qcow2_mutant; /* the rule that is broken, or NULL */
void sched_point (const char *name);

#define MUTANT(name) \
  (qcow2_mutant && __builtin_strcmp (qcow2_mutant, #name) == 0)
#define PAUSE_POINT(name) sched_point (name)

#endif /* QCOW2_MUTANT_H */
