/* qcow2ext: what two files may be when the power goes during a race.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdlib.h>
#include <string.h>

#include "crash.h"
#include "race-cuts.h"

#define FEW 4                   /* all subsets of so many */
#define SAMPLES 6

enum { GONE, THERE, TORN };

struct walk {
  struct race_cuts *c;
  struct memory_file base[2], state[2];
  const struct memory_op **open; /* that no flush has covered */
  uint8_t *fate;                 /* of each of these */
  size_t opens, cut;
  struct rng rng;
};

static void
apply_part (struct memory_file *f, const struct memory_op *op, bool whole)
{
  struct memory_op part = *op;
  const uint64_t half =
    (op->offset + op->length / 2) / MEMORY_SECTOR * MEMORY_SECTOR;

  if (!whole) {
    if (op->kind == MEMORY_RESIZE || half <= op->offset)
      return;
    part.length = half - op->offset;
  }
  memory_file_apply (f, &part);
}

static bool
look (struct walk *w)
{
  for (unsigned f = 0; f < 2; f++)
    memory_file_copy (&w->state[f], &w->base[f]);
  for (size_t i = 0; i < w->opens; i++)
    if (w->fate[i] != GONE)
      apply_part (&w->state[w->open[i]->file], w->open[i],
                  w->fate[i] == THERE);
  w->c->states++;
  return w->c->look (w->c->opaque, w->state, w->cut);
}

/* The states without the last operation are those of the cut before it. */
static bool
try_subsets (struct walk *w)
{
  const size_t last = w->opens - 1;

  for (unsigned mask = 0; mask < 1U << last; mask++) {
    for (size_t i = 0; i < last; i++)
      w->fate[i] = mask >> i & 1 ? THERE : GONE;
    w->fate[last] = THERE;
    if (!look (w))
      return false;
  }
  return true;
}

static bool
try_samples (struct walk *w)
{
  const size_t last = w->opens - 1;

  for (unsigned n = 0; n < SAMPLES; n++) {
    for (size_t i = 0; i < last; i++)
      w->fate[i] = n == 0 ? GONE : n == 1 ? THERE
        : rng_below (&w->rng, 2) ? THERE : GONE;
    w->fate[last] = THERE;
    if (!look (w))
      return false;
  }
  return true;
}

static bool
try_torn (struct walk *w)
{
  const size_t last = w->opens - 1;

  if (w->open[last]->length <= MEMORY_SECTOR)
    return true;
  for (size_t i = 0; i < last; i++)
    w->fate[i] = rng_below (&w->rng, 2) ? THERE : GONE;
  w->fate[last] = TORN;
  return look (w);
}

static void
flush (struct walk *w, unsigned file)
{
  size_t left = 0;

  for (size_t i = 0; i < w->opens; i++)
    if (w->open[i]->file == file)
      memory_file_apply (&w->base[file], w->open[i]);
    else
      w->open[left++] = w->open[i];
  w->opens = left;
}

static bool
step (struct walk *w, const struct memory_op *op)
{
  w->cut++;
  if (op->kind == MEMORY_FLUSH) {
    if (op->failed)
      return false;
    flush (w, op->file);
    if (w->cut <= w->c->first)
      return true;
    w->c->cuts++;
    memset (w->fate, GONE, w->opens);
    return look (w);
  }
  w->open[w->opens++] = op;
  if (w->cut <= w->c->first)
    return true;
  w->c->cuts++;
  return (w->opens <= FEW ? try_subsets (w) : try_samples (w))
    && try_torn (w);
}

void
race_cuts_run (struct race_cuts *c)
{
  struct walk w = { .c = c, .rng = { c->seed } };

  w.open = malloc ((c->log->count + 1) * sizeof *w.open);
  w.fate = malloc (c->log->count + 1);
  if (w.open == NULL || w.fate == NULL)
    abort ();
  for (unsigned f = 0; f < 2; f++)
    memory_file_copy (&w.base[f], &c->start[f]);
  for (size_t i = 0; i < c->log->count; i++)
    if (!step (&w, &c->log->op[i]))
      break;
  for (unsigned f = 0; f < 2; f++) {
    memory_file_free (&w.base[f]);
    memory_file_free (&w.state[f]);
  }
  free (w.open);
  free (w.fate);
}

static uint64_t
add (uint64_t hash, uint64_t value)
{
  hash = (hash ^ value) * UINT64_C (0x9fb21c651e98df25);
  return hash ^ hash >> 29;
}

uint64_t
race_cuts_hash (const struct memory_log *log)
{
  uint64_t hash = log->count;

  for (size_t i = 0; i < log->count; i++) {
    const struct memory_op *op = &log->op[i];

    hash = add (hash, op->kind | op->file << 8 | op->failed << 16);
    hash = add (add (hash, op->offset), op->length);
    for (uint64_t j = 0; op->kind == MEMORY_WRITE && j + 8 <= op->length;
         j += 8) {
      uint64_t word;

      memcpy (&word, op->data + j, 8);
      hash = add (hash, word);
    }
  }
  return hash;
}
