/* qcow2ext: what the requests of a race may lead to.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef RACE_ORDERS_H
#define RACE_ORDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "race-run.h"

/* Where bytes may come from: the beginning, nowhere (zeros), or a write. */
#define FROM_BEGINNING 1
#define FROM_NOWHERE 2
#define FROM_WRITE(i) (4U << (i))

/* The disk is cut where requests begin and end. */
void race_add_cut (struct run *run, uint64_t at);

/* The sources that each region may be from, after those requests that must
 * have been done and perhaps others, of which the first "cut" operations may
 * be there.
 */
void race_allow (struct run *run, bool (*must) (const struct done *, size_t),
                 size_t bound, size_t cut, uint32_t *allowed);

/* After all requests, or in a state that was flushed at a place in the log:
 * those must be in it that had ended when the flush began.
 */
bool all_must (const struct done *d, size_t bound);
bool ended_must (const struct done *d, size_t bound);

/* Are these the bytes of [from, from + n) from one of the sources? */
bool race_is_from (const struct run *run, uint32_t sources, uint64_t from,
                   uint64_t n, const uint8_t *bytes);

/* Compares a part of the disk; where is "where" it was found. */
void race_compare (struct run *run, const uint32_t *allowed,
                   const uint8_t *bytes, uint64_t offset, uint64_t length,
                   const char *where);

#endif /* RACE_ORDERS_H */
