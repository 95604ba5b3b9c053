/* qcow2ext: what the requests of a race may lead to.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "race-orders.h"
#include "base/is-zero.h"

/* No order that began like this leads to what was read. */
#define IMPOSSIBLE (1U << 31)
static_assert (MAX_ALL < 29, "a write is not \"impossible\"");

struct order {
  const struct run *run;
  bool (*must) (const struct done *d, size_t bound);
  size_t bound;                 /* for must */
  size_t cut;                   /* operations that there were; SIZE_MAX */
  bool with_reads;              /* what was read has to fit */
  uint32_t *allowed;            /* of each region */
  unsigned next[SCHED_THREADS];
};

bool
all_must (const struct done *d, size_t bound)
{
  (void) d, (void) bound;
  return true;
}

bool
ended_must (const struct done *d, size_t bound)
{
  return d->end < bound;
}

static bool
may_come_next (const struct order *o, const struct done *d)
{
  const struct run *run = o->run;

  for (unsigned t = 0; t < run->race->threads; t++)
    for (unsigned i = o->next[t]; i < run->race->n_requests[t]; i++)
      if (run->done[t * MAX_REQUESTS + i].end < d->begin)
        return false;
  return true;
}

/* Goes through all orders, with the state of each region. */
static void
explore (struct order *o, const uint32_t *state)
{
  const struct run *run = o->run;
  const struct race *race = run->race;
  bool complete = true;

  for (unsigned t = 0; t < race->threads; t++)
    for (unsigned i = o->next[t]; i < race->n_requests[t]; i++)
      if (o->must (&run->done[t * MAX_REQUESTS + i], o->bound))
        complete = false;
  if (complete)
    for (unsigned i = 0; i + 1 < run->cuts; i++)
      o->allowed[i] |= state[i] & ~IMPOSSIBLE;

  for (unsigned t = 0; t < race->threads; t++) {
    const unsigned number = t * MAX_REQUESTS + o->next[t];
    const struct done *d = &run->done[number];
    const struct request *q = d->request;
    uint32_t then_state[MAX_REGIONS];

    if (o->next[t] == race->n_requests[t] || !may_come_next (o, d)
        || d->log_begin >= o->cut)
      continue;
    for (unsigned i = 0; i + 1 < run->cuts; i++) {
      uint32_t to = 0;

      then_state[i] = state[i];
      if (run->cut[i] < q->offset
          || run->cut[i] >= q->offset + q->length || state[i] == IMPOSSIBLE)
        continue;
      if (q->kind == READ && o->with_reads && d->seen[i]) {
        to = state[i] & d->seen[i];
        then_state[i] = to ? to : IMPOSSIBLE;
        continue;
      }
      if (q->kind == WRITE)
        to = FROM_WRITE (number);
      else if (q->kind == ZERO || q->kind == TRIM)
        to = FROM_NOWHERE;
      /* Trimming may do nothing; what failed may have done all or nothing. */
      if (to && (q->kind == TRIM || d->result < 0))
        to |= state[i];
      if (to)
        then_state[i] = to;
    }
    o->next[t]++;
    explore (o, then_state);
    o->next[t]--;
  }
}

void
race_allow (struct run *run, bool (*must) (const struct done *, size_t),
            size_t bound, size_t cut, uint32_t *allowed)
{
  struct order o = {
    .run = run, .must = must, .bound = bound, .cut = cut, .allowed = allowed,
    .with_reads = must == all_must
  };
  uint32_t state[MAX_REGIONS];

  memset (allowed, 0, MAX_REGIONS * sizeof *allowed);
  for (unsigned i = 0; i < MAX_REGIONS; i++)
    state[i] = FROM_BEGINNING;
  explore (&o, state);
}

void
race_add_cut (struct run *run, uint64_t at)
{
  unsigned i = run->cuts;

  for (unsigned j = 0; j < run->cuts; j++)
    if (run->cut[j] == at)
      return;
  for (; i > 0 && run->cut[i - 1] > at; i--)
    run->cut[i] = run->cut[i - 1];
  run->cut[i] = at;
  run->cuts++;
}

bool
race_is_from (const struct run *run, uint32_t sources, uint64_t from,
              uint64_t n, const uint8_t *bytes)
{
  if ((sources & FROM_BEGINNING) && memcmp (bytes, run->initial + from, n) == 0)
    return true;
  if ((sources & FROM_NOWHERE) && is_zero (bytes, n))
    return true;
  for (unsigned i = 0; i < MAX_ALL; i++)
    if (sources & FROM_WRITE (i)) {
      const struct done *d = &run->done[i];

      if (memcmp (bytes, d->content + (from - d->request->offset), n) == 0)
        return true;
    }
  return false;
}

void
race_compare (struct run *run, const uint32_t *allowed, const uint8_t *bytes,
              uint64_t offset, uint64_t length, const char *where)
{
  for (unsigned i = 0; i + 1 < run->cuts; i++) {
    uint64_t from = run->cut[i] < offset ? offset : run->cut[i];
    uint64_t to = run->cut[i + 1];

    if (to > offset + length)
      to = offset + length;
    while (from < to) {
      uint64_t next = (from / MEMORY_SECTOR + 1) * MEMORY_SECTOR;

      if (next > to)
        next = to;
      if (!race_is_from (run, allowed[i], from, next - from,
                         bytes + (from - offset))) {
        uint64_t word = 0;

        for (unsigned b = 0; b < 8 && from + b < next; b++)
          word = word << 8 | bytes[from - offset + b];
        race_fail (run, "%s: at %" PRIu64 " there is %016" PRIx64 " (sources "
                   "may be %#x)", where, from, word, allowed[i]);
        return;
      }
      from = next;
    }
  }
}
