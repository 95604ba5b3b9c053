/* qcow2ext: all short histories.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Every sequence of three requests out of a list, on every two neighbouring
 * clusters of an image that differ in what they are, and on two neighbouring
 * subclusters across the boundary of clusters.  After the third one the image
 * is settled and closed.
 *
 * Shorter ones are prefixes of these: crash.c cuts at every operation, so their
 * states are among those of the longer ones; that they end by settling is a
 * sequence of its own, for settling is in the list.
 *
 * Left out is what is the same as another one:
 *
 *   - one that begins with a flush, with settling or with opening again: where
 *     nothing has been changed these do nothing to the files, so that it is a
 *     prefix of another one
 *   - a flush after a flush or after opening again, and opening twice: nothing
 *     is left for the second one
 *   - two neighbours of the same kinds as others in the same image
 */

#include "build-config.h"

#include <stdlib.h>
#include <string.h>

#include "crash-workloads.h"

/* In halves of a cluster. */
static const struct {
  enum request_kind kind;
  unsigned begin, end, flags;
} choices[] = {
  { WRITE, 0, 2, 0 },           /* all of the first */
  { WRITE, 2, 4, 0 },           /* all of the second */
  { WRITE, 0, 1, 0 },           /* a part */
  { WRITE, 1, 2, 0 },           /* the other one */
  { WRITE, 1, 3, 0 },           /* across */
  { ZERO, 0, 2, IMAGE_ZERO_UNMAP },
  { ZERO, 0, 2, 0 },
  { ZERO, 0, 1, IMAGE_ZERO_UNMAP },
  { ZERO, 1, 4, IMAGE_ZERO_UNMAP },
  { TRIM, 0, 2, 0 },
  { TRIM, 0, 4, 0 },
  { TRIM, 1, 3, 0 },
  { FLUSH, 0, 0, 0 },
  { SETTLE, 0, 0, SETTLE_IDLE },
  { SETTLE, 0, 0, SETTLE_REOPEN },
};
#define CHOICES (sizeof choices / sizeof choices[0])
#define CHANGES (CHOICES - 3)
#define SEQUENCES (CHANGES * CHOICES * CHOICES)

/* Pairs of neighbours: at clusters 0 to 5, then the boundary before each of
 * clusters 1 to 6 for subclusters.
 */
#define PLACES 6

static unsigned
specs (void)
{
  unsigned n = 0;

  while (crash_specs[n].name)
    n++;
  return n;
}

uint64_t
crash_shorts (void)
{
  return (uint64_t) specs () * 2 * PLACES * SEQUENCES;
}

static char
kind_of (const struct image_spec *spec, unsigned cluster)
{
  return spec->map[cluster % strlen (spec->map)];
}

/* Have two other neighbours, before these, the same kinds? */
static bool
is_repeated (const struct image_spec *spec, unsigned cluster)
{
  for (unsigned i = 0; i < cluster; i++)
    if (kind_of (spec, i) == kind_of (spec, cluster)
        && kind_of (spec, i + 1) == kind_of (spec, cluster + 1))
      return true;
  return false;
}

static bool
does_nothing (unsigned second, unsigned first)
{
  const unsigned flush = CHANGES, reopen = CHANGES + 2;

  return (second == flush || second == reopen)
    && (first == reopen || (first == flush && second == flush));
}

bool
crash_short (uint64_t number, struct workload *workload)
{
  const unsigned sequence = number % SEQUENCES;
  const unsigned place = number / SEQUENCES % (2 * PLACES);
  const struct image_spec *spec = &crash_specs[number / SEQUENCES
                                               / (2 * PLACES)];
  const unsigned which[3] = {
    sequence % CHANGES, sequence / CHANGES % CHOICES,
    sequence / CHANGES / CHOICES
  };
  const uint64_t cluster = UINT64_C (1) << spec->cluster_bits;
  const bool sub = place >= PLACES;
  const uint64_t unit = sub ? cluster / 32 : cluster;
  const uint64_t at = sub ? (place - PLACES + 1) * cluster - unit
                          : place * cluster;

  if ((sub && !spec->extended) || is_repeated (spec, place % PLACES)
      || at + 2 * unit > spec->size || does_nothing (which[1], which[0])
      || does_nothing (which[2], which[1]))
    return false;
  memset (workload, 0, sizeof *workload);
  workload->name = "short";
  workload->variant = sequence;
  workload->spec = spec;
  workload->steps = 3;
  workload->step = calloc (3, sizeof *workload->step);
  if (workload->step == NULL)
    abort ();
  for (unsigned i = 0; i < 3; i++)
    workload->step[i].request = (struct request) {
      .kind = choices[which[i]].kind, .flags = choices[which[i]].flags,
      .offset = choices[which[i]].end ? at + choices[which[i]].begin * unit / 2
                                      : 0,
      .length = (choices[which[i]].end - choices[which[i]].begin) * unit / 2,
    };
  return true;
}
