/* qcow2ext: what has been read ahead, or is to be.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdlib.h>

#include "chunks.h"

/* How long a chunk is good for, in nanoseconds. */
#define KEEP UINT64_C (5000000000)

void
chunks_init (struct chunk_list *list, size_t memory)
{
  *list = (struct chunk_list) { .memory = memory };
  list->last = &list->first;
}

static void
free_chunk (struct chunk *c)
{
  free (c->data);
  free (c);
}

void
chunks_unlist (struct chunk_list *list, struct chunk *c)
{
  *c->link = c->next;
  *(c->next ? &c->next->link : &list->last) = c->link;
  c->listed = false;
  list->bytes -= c->end - c->start;
}

static void
take_out (struct chunk_list *list, struct chunk *c)
{
  chunks_unlist (list, c);
  if (c->users == 0)
    free_chunk (c);
}

void
chunk_release (struct chunk *c)
{
  if (--c->users == 0 && !c->listed)
    free_chunk (c);
}

void
chunks_drop_range (struct chunk_list *list, uint64_t start, uint64_t end)
{
  struct chunk *next;

  for (struct chunk *c = list->first; c; c = next) {
    next = c->next;
    if (c->start < end && start < c->end)
      take_out (list, c);
  }
}

void
chunks_drop_old (struct chunk_list *list, uint64_t time)
{
  struct chunk *next;

  for (struct chunk *c = list->first; c && time - c->when > KEEP; c = next) {
    next = c->next;
    take_out (list, c);
  }
}

/* Makes room for so many bytes: the oldest chunks without users go.  Returns
 * false if that is not enough.
 */
static bool
make_room (struct chunk_list *list, uint64_t bytes)
{
  while (list->bytes + bytes > list->memory) {
    struct chunk *c = list->first;

    while (c && (c->users || c->state != READY))
      c = c->next;
    if (c == NULL)
      return false;
    take_out (list, c);
  }
  return true;
}

bool
chunks_order (struct chunk_list *list, uint64_t start, uint64_t end,
              uint64_t time)
{
  struct chunk *c;

  for (c = list->first; c; c = c->next)
    if (c->start < end && start < c->end)
      return true;
  if (!make_room (list, end - start) || (c = malloc (sizeof *c)) == NULL)
    return false;
  *c = (struct chunk) {
    .link = list->last, .start = start, .end = end, .state = QUEUED,
    .listed = true, .when = time,
  };
  *list->last = c;
  list->last = &c->next;
  list->bytes += end - start;
  return true;
}

struct chunk *
chunks_find (const struct chunk_list *list, uint64_t offset, size_t *count)
{
  for (struct chunk *c = list->first; c; c = c->next) {
    if (offset >= c->start && offset < c->end)
      return c;
    if (c->start > offset && c->start - offset < *count)
      *count = c->start - offset;
  }
  return NULL;
}

struct chunk *
chunks_find_queued (const struct chunk_list *list)
{
  struct chunk *c = list->first;

  while (c && c->state != QUEUED)
    c = c->next;
  return c;
}
