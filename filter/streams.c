/* qcow2ext: which requests read in order, and how far to read ahead of them.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdbool.h>

#include "base/bits.h"
#include "streams.h"

/* The first window, and the least that one request brings. */
#define FIRST_WINDOW (UINT64_C (512) << 10)
#define LEAST_PART (UINT64_C (256) << 10)

/* So many requests have to go on from where the last one ended. */
#define IN_ORDER 2

/* A stream without a request among so many is not one any more. */
#define RECENT 256

static bool
goes_on (const struct stream *s, uint64_t offset, uint64_t slack)
{
  return s->used && offset <= s->next + slack && s->next <= offset + slack;
}

/* The stream that a request belongs to, or the one to forget for it. */
static struct stream *
find (struct streams *streams, uint64_t offset, uint64_t slack)
{
  struct stream *oldest = streams->stream;

  for (struct stream *s = streams->stream; s < streams->stream + STREAMS;
       s++) {
    if (goes_on (s, offset, slack))
      return s;
    if (s->used < oldest->used)
      oldest = s;
  }
  *oldest = (struct stream) { 0 };
  return oldest;
}

/* How many streams there are that read in order, of which there was a request
 * not long ago.
 */
static unsigned
active (const struct streams *streams)
{
  unsigned n = 0;

  for (const struct stream *s = streams->stream;
       s < streams->stream + STREAMS; s++)
    n += s->window && streams->now - s->used < RECENT;
  return n;
}

void
streams_note (struct streams *streams, uint64_t offset, uint64_t count,
              uint64_t slack, uint64_t most, unsigned requests,
              uint64_t most_part, uint64_t *start, uint64_t *end,
              uint64_t *part)
{
  struct stream *s = find (streams, offset, slack);

  *start = *end = 0;
  if (s->used)
    s->in_order++;
  s->used = ++streams->now;
  s->next = max64 (s->next, offset + count);
  if (s->in_order < IN_ORDER)
    return;

  s->window = s->window ? 2 * s->window : max64 (FIRST_WINDOW, 2 * count);
  s->window = min64 (s->window, most / active (streams));
  *part = max64 (min64 (s->window / requests, most_part), LEAST_PART);
  s->ahead = max64 (s->ahead, s->next);
  if (s->ahead + *part > s->next + s->window)
    return;
  *start = s->ahead;
  *end = s->ahead = s->next + s->window;
}
