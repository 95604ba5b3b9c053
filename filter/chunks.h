/* qcow2ext: what has been read ahead, or is to be.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Chunks in the list do not overlap, and take no more than the memory given.  A
 * chunk out of the list is freed by its last user.
 *
 * Everything here is done in memory: the caller has the lock.  Offsets and
 * lengths are in bytes, times in nanoseconds.
 */

#ifndef QCOW2EXT_CHUNKS_H
#define QCOW2EXT_CHUNKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum chunk_state { QUEUED, LOADING, READY, FAILED };

struct chunk {
  struct chunk *next, **link;   /* in the list, oldest first; what refers to
                                   this one */
  uint64_t start, end;          /* bytes */
  enum chunk_state state;
  bool listed;
  unsigned users;
  uint64_t taken;               /* bytes that requests have got */
  uint64_t when;                /* it was ordered */
  uint8_t *data;                /* from LOADING on */
};

struct chunk_list {
  struct chunk *first, **last;  /* oldest first; where the next one comes */
  size_t memory, bytes;         /* the most, and of chunks in the list */
};

void chunks_init (struct chunk_list *list, size_t memory);

/* Adds a chunk, QUEUED, unless one of its bytes is in the list; chunks without
 * users make room for it.  Returns false if there is no memory.
 */
bool chunks_order (struct chunk_list *list, uint64_t start, uint64_t end,
                   uint64_t time);

/* Finds the chunk that holds offset.  If there is none, *count is cut down to
 * where the next one begins.
 */
struct chunk *chunks_find (const struct chunk_list *list, uint64_t offset,
                           size_t *count);
struct chunk *chunks_find_queued (const struct chunk_list *list);

/* Takes a chunk with users out of the list; or all chunks of a range; or those
 * that are too old.
 */
void chunks_unlist (struct chunk_list *list, struct chunk *c);
void chunks_drop_range (struct chunk_list *list, uint64_t start,
                        uint64_t end);
void chunks_drop_old (struct chunk_list *list, uint64_t time);

/* Ends a use. */
void chunk_release (struct chunk *c);

#endif /* QCOW2EXT_CHUNKS_H */
