/* qcow2ext: is what a race has left right?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef RACE_CHECK_H
#define RACE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "race-run.h"

/* Of the image that a race is run on. */
extern struct pristine pristine;

void race_check_results (struct run *run);
void race_check_reads (struct run *run);

/* Which sources may the regions be from that were read? */
void race_find_seen (struct run *run, struct done *d);

/* Checks a state of the files.  allowed NULL: whatever the guest sees. */
void race_check_files (struct run *run, struct memory_file *image,
                       struct memory_file *data, const uint32_t *allowed,
                       bool settled, const char *where);

/* When did the last flush begin of those that had ended? */
size_t race_flushed_event (const struct run *run, size_t log);

/* The power goes after each flush: nothing else has reached the disk, or all
 * that was written.  first: what was done before the race.
 */
void race_check_flushes (struct run *run, size_t first);

/* The power goes after each operation. */
void race_check_cuts (struct run *run, size_t first);

/* Records that were cut before are cut again. */
void race_forget_records (void);

#endif /* RACE_CHECK_H */
