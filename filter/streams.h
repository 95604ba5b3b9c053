/* qcow2ext: which requests read in order, and how far to read ahead of them.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Requests of several clients, or of one with many under way, come interleaved
 * and not quite in order.  So a few streams are told apart by where they are:
 *
 *   new --two requests that go on from there--> in order, with a window
 *       --the next ones--> the window doubles each time, up to its limit
 *       --others came meanwhile, and this is the oldest--> forgotten
 *
 * Everything here is pure computation: the caller has the lock.
 */

#ifndef QCOW2EXT_STREAMS_H
#define QCOW2EXT_STREAMS_H

#include <stddef.h>
#include <stdint.h>

#define STREAMS 8

struct stream {
  uint64_t next;                /* where the furthest request ended */
  uint64_t ahead;               /* how far has been read ahead */
  uint64_t window;              /* how far it is to be; 0: not in order yet */
  unsigned in_order;            /* requests */
  uint64_t used;                /* when; 0: never */
};

struct streams {
  struct stream stream[STREAMS];
  uint64_t now;                 /* counts requests */
};

/* Notes a request.  slack: how far from where the last one ended it may be, to
 * go on from there; most: all windows together.  A window is read by
 * that many requests, or by more of most_part each.  Sets *start and *end to
 * the range that is to be read ahead now, in parts of *part bytes: none if they
 * are equal.  All in bytes.
 */
void streams_note (struct streams *streams, uint64_t offset, uint64_t count,
                   uint64_t slack, uint64_t most, unsigned requests,
                   uint64_t most_part, uint64_t *start, uint64_t *end,
                   uint64_t *part);

#endif /* QCOW2EXT_STREAMS_H */
