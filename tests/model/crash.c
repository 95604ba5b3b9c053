/* qcow2ext: what a disk may show after a crash.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash.h"
#include "crash-check.h"
#include "hash-set.h"
#include "need.h"
#include "base/report.h"

static void
loud_sink (enum report_level level, const char *message)
{
  static const char *const names[] = { "debug", "warning", "error" };

  fprintf (stderr, "%s: %s\n", names[level], message);
}

static void
quiet_sink (enum report_level level, const char *message)
{
  (void) level, (void) message;
}

unsigned
crash_share (unsigned n)
{
  return getenv ("QCOW2EXT_TEST_SHORT") && n > 0 ? (n + 3) / 4 : n;
}

void
crash_quiet (void)
{
  report_set_sink (getenv ("QCOW2EXT_TEST_VERBOSE") ? loud_sink : quiet_sink);
}

static uint64_t
hash_file (const struct memory_file *f, uint64_t seed)
{
  uint64_t a = seed + f->size, b = ~seed;
  uint64_t word[2];

  for (uint64_t i = 0; i + 16 <= ((f->size + 15) & -UINT64_C (16)); i += 16) {
    memcpy (word, f->bytes + i, 16); /* room is a multiple of 64 KiB */
    a = (a ^ word[0]) * UINT64_C (0x9fb21c651e98df25);
    b = (b ^ word[1]) * UINT64_C (0xa0761d6478bd642f);
    a ^= a >> 32;
    b ^= b >> 29;
  }
  return a ^ (b << 31 | b >> 33);
}

/* How an operation that is not durable appears in a state. */
enum { NONE, ALL, PREFIX, SUFFIX, PIECES };
struct choice {
  uint8_t how;
  uint32_t seed;
};

struct open_op {
  const struct memory_op *op;
  bool certain;                 /* it is durable, but others before it not */
  bool lost;                    /* a flush failed: it may never be durable */
};

struct enumeration {
  const struct crash_options *options;
  struct crash_stats *stats;
  struct rng lot;

  struct crash_state state;
  struct memory_file base[2];
  struct open_op *open;
  size_t opens, room;
  struct choice *choice;        /* of each open one */
  struct hash_set tried;
  bool counting;                /* only count the states */
  uint64_t states;              /* that many there are to try */
  char *failure;
};

/* All states of all workloads. */
static struct hash_set all_states;

bool
crash_states_write (FILE *f)
{
  for (size_t i = 0; i < all_states.room; i++)
    if (all_states.slot[i]
        && fwrite (&all_states.slot[i], sizeof (uint64_t), 1, f) != 1)
      return false;
  return true;
}

uint64_t
crash_states_add (FILE *f)
{
  const size_t before = all_states.count;
  uint64_t hash;

  while (fread (&hash, sizeof hash, 1, f) == 1)
    hash_set_add (&all_states, hash);
  return all_states.count - before;
}

static bool
is_change (const struct memory_op *op)
{
  return op->kind != MEMORY_FLUSH && op->kind != MEMORY_READ;
}

static unsigned
op_sectors (const struct memory_op *op)
{
  if (op->kind == MEMORY_RESIZE)
    return 1;
  return (op->offset + op->length - 1) / MEMORY_SECTOR
    - op->offset / MEMORY_SECTOR + 1;
}

static void
apply_torn (struct memory_file *f, const struct memory_op *op,
            struct choice choice)
{
  const unsigned n = op_sectors (op);
  const unsigned where = n > 1 ? 1 + choice.seed % (n - 1) : 0;
  struct rng rng = { choice.seed };

  for (unsigned i = 0; i < n; i++) {
    struct memory_op part = *op;
    const uint64_t start = i == 0 ? op->offset
      : (op->offset / MEMORY_SECTOR + i) * MEMORY_SECTOR;
    uint64_t end = (op->offset / MEMORY_SECTOR + i + 1) * MEMORY_SECTOR;

    if (end > op->offset + op->length)
      end = op->offset + op->length;
    if ((choice.how == PREFIX && i >= where)
        || (choice.how == SUFFIX && i < where)
        || (choice.how == PIECES && rng_below (&rng, 2)))
      continue;
    part.offset = start;
    part.length = end - start;
    if (part.data)
      part.data += start - op->offset;
    memory_file_apply (f, &part);
  }
}

static void
build (struct enumeration *e)
{
  memory_file_copy (&e->state.file[0], &e->base[0]);
  memory_file_copy (&e->state.file[1], &e->base[1]);
  for (size_t i = 0; i < e->opens; i++) {
    const struct memory_op *op = e->open[i].op;
    struct memory_file *f = &e->state.file[op->file];

    if (e->open[i].certain || e->choice[i].how == ALL)
      memory_file_apply (f, op);
    else if (e->choice[i].how != NONE)
      apply_torn (f, op, e->choice[i]);
  }
}

/* What is wrong with the state, and which it is. */
static void
explain (struct enumeration *e)
{
  int n = snprintf (e->failure, 1024, "%s\n  after %zu operations, of which "
                    "not durable (+ is there, - is not, ~ is torn):",
                    e->state.why, e->state.cut);

  for (size_t i = 0; i < e->opens && n < 960; i++) {
    const struct memory_op *op = e->open[i].op;

    n += snprintf (e->failure + n, 1024 - n, "\n  %c%s %s 0x%" PRIx64
                   "+0x%" PRIx64,
                   e->open[i].certain || e->choice[i].how == ALL ? '+'
                   : e->choice[i].how == NONE ? '-' : '~',
                   memory_kind_name (op->kind), op->file ? "data" : "image",
                   op->offset, op->length);
  }
}

/* Builds the state that the choices say and looks at it, if it is new. */
static bool
try_state (struct enumeration *e)
{
  uint64_t hash;
  bool is_new, by_qemu;

  /* What comes before is the same for all points to stop at. */
  if (e->options->from_pause && e->state.cut < e->state.w->pause_begin)
    return true;
  if (e->counting) {
    e->states++;
    return true;
  }
  /* If there are too many, leave some out all along the way. */
  if (e->options->max_states
      && rng_below (&e->lot, e->states) >= e->options->max_states)
    return true;
  build (e);
  e->stats->built++;
  hash = hash_file (&e->state.file[1], hash_file (&e->state.file[0], 1));
  /* What was flushed in the meantime forbids more. */
  if (!hash_set_add (&e->tried, hash + e->state.flushed))
    return true;
  is_new = hash_set_add (&all_states, hash);
  e->stats->distinct += is_new;
  by_qemu = is_new && e->options->qemu_every
    && e->stats->distinct % e->options->qemu_every == 0;
  if (crash_state_is_sound (&e->state, by_qemu ? &e->stats->by_qemu : NULL))
    return true;
  explain (e);
  return false;
}

/* --- choosing states --- */

static void
choose_all (struct enumeration *e, uint8_t how)
{
  for (size_t i = 0; i < e->opens; i++)
    e->choice[i] = (struct choice) { .how = how };
}

static void
choose_randomly (struct enumeration *e, bool torn)
{
  const unsigned bias = 1 + rng_below (&e->state.rng, 3);

  for (size_t i = 0; i < e->opens; i++) {
    struct choice *c = &e->choice[i];

    c->seed = rng_next (&e->state.rng);
    c->how = rng_below (&e->state.rng, 4) < bias ? ALL : NONE;
    if (torn && rng_below (&e->state.rng, 4) == 0)
      c->how = PREFIX + rng_below (&e->state.rng, 3);
  }
}

/* Every part of a small set.  with_last: those that have its last one; the
 * others are known.
 */
static bool
try_exhaustively (struct enumeration *e, bool with_last)
{
  const size_t n = e->opens;

  for (size_t mask = 0; mask < (size_t) 1 << n; mask++) {
    if (with_last && !(mask >> (n - 1)))
      continue;
    for (size_t i = 0; i < n; i++)
      e->choice[i] = (struct choice) { .how = mask >> i & 1 ? ALL : NONE };
    if (!try_state (e))
      return false;
  }
  return true;
}

static bool
try_samples (struct enumeration *e)
{
  for (unsigned all = 0; all < 2; all++) {
    choose_all (e, all ? ALL : NONE);
    if (!try_state (e))
      return false;
    for (size_t i = 0; i < e->opens; i++) {
      e->choice[i].how = all ? NONE : ALL;
      if (!try_state (e))
        return false;
      e->choice[i].how = all ? ALL : NONE;
    }
  }
  choose_all (e, NONE);
  for (size_t i = 0; i < e->opens; i++) {
    e->choice[i].how = ALL;
    if (!try_state (e))
      return false;
  }
  for (unsigned i = 0; i < 32; i++) {
    choose_randomly (e, i & 1);
    if (!try_state (e))
      return false;
  }
  return true;
}

/* The last one is torn, and the others are there or not. */
static bool
try_torn (struct enumeration *e)
{
  for (unsigned i = 0; i < 9; i++) {
    if (i % 3 == 2)
      choose_randomly (e, false);
    else
      choose_all (e, i % 3 ? ALL : NONE);
    e->choice[e->opens - 1] = (struct choice) {
      .how = PREFIX + i / 3, .seed = rng_next (&e->state.rng)
    };
    if (!try_state (e))
      return false;
  }
  return true;
}

/* --- walking through the log --- */

static void
apply_to_base (struct enumeration *e, unsigned file)
{
  size_t left = 0;
  bool uncertain = false;

  for (size_t i = 0; i < e->opens; i++) {
    struct open_op *o = &e->open[i];

    if (o->op->file == file && !o->lost)
      o->certain = true;
    /* The base has what nothing uncertain comes before. */
    if (o->op->file == file && !o->certain)
      uncertain = true;
    if (o->op->file == file && o->certain && !uncertain)
      memory_file_apply (&e->base[file], o->op);
    else
      e->open[left++] = *o;
  }
  e->opens = left;
}

static void
add_open (struct enumeration *e, const struct memory_op *op)
{
  if (e->opens == e->room) {
    e->room = e->room ? 2 * e->room : 64;
    e->open = need (realloc (e->open, e->room * sizeof *e->open));
    e->choice = need (realloc (e->choice, e->room * sizeof *e->choice));
  }
  e->open[e->opens++] = (struct open_op) { .op = op };
}

static void
note_flushes (struct enumeration *e)
{
  for (size_t i = 0; i < e->state.w->flushes; i++)
    if (e->state.w->flushed[i].end <= e->state.cut
        && e->state.w->flushed[i].begin > e->state.flushed)
      e->state.flushed = e->state.w->flushed[i].begin;
}

static bool
try_cut (struct enumeration *e)
{
  const struct memory_log *log = &e->state.w->log;
  const struct memory_op *last =
    e->state.cut ? &log->op[e->state.cut - 1] : NULL;
  const struct memory_op *next =
    e->state.cut < log->count ? &log->op[e->state.cut] : NULL;
  const bool grown = last && is_change (last);

  e->stats->cuts += !e->counting;
  e->stats->cuts_in_full += !e->counting && e->opens <= 8;
  if (e->opens <= 8) {
    if (!try_exhaustively (e, grown))
      return false;
  }
  else if (next == NULL || !is_change (next) || !grown) {
    if (!try_samples (e))
      return false;
  }
  else {
    choose_all (e, NONE);
    e->choice[e->opens - 1].how = ALL;
    if (!try_state (e))
      return false;
    for (unsigned i = 0; i < 4; i++) {
      choose_randomly (e, i & 1);
      e->choice[e->opens - 1].how = ALL;
      if (!try_state (e))
        return false;
    }
  }
  return !grown || op_sectors (last) == 1 || try_torn (e);
}

static bool
enumerate (struct enumeration *e, bool counting)
{
  const struct memory_log *log = &e->state.w->log;

  e->counting = counting;
  e->opens = 0;
  e->state.flushed = 0;
  for (unsigned i = 0; i < 2; i++)
    memory_file_copy (&e->base[i], &e->state.w->start[i]);
  for (e->state.cut = 0; e->state.cut <= log->count; e->state.cut++) {
    if (e->state.cut > 0) {
      const struct memory_op *op = &log->op[e->state.cut - 1];

      if (is_change (op))
        add_open (e, op);
      else if (op->kind == MEMORY_FLUSH && !op->failed)
        apply_to_base (e, op->file);
      else if (op->kind == MEMORY_FLUSH)
        for (size_t i = 0; i < e->opens; i++)
          e->open[i].lost |= e->open[i].op->file == op->file;
    }
    note_flushes (e);
    if (!try_cut (e))
      return false;
  }
  return true;
}

/* Whoever asked for what failed must have been told, but: that a place cannot
 * be given back concerns nobody; where space has run out, we may have found
 * some; and what could not be read was perhaps not needed, or was read again.
 */
static void
check_errors (struct world *w, const struct memory_fault *fault)
{
  if (w->log.faults_met && w->first_error == 0
      && fault->kind != MEMORY_DISCARD && fault->kind != MEMORY_READ
      && fault->kind != MEMORY_ALLOC && fault->error != ENOSPC)
    world_fail (w, "a %s failed, but no request did",
                memory_kind_name (fault->kind));
  if (w->first_error && w->first_error != -fault->error
      && w->first_error != -EIO)
    world_fail (w, "%s became %s", strerror (fault->error),
                strerror (-w->first_error));
}

bool
crash_run (const struct workload *workload,
           const struct crash_options *options, struct crash_stats *stats,
           char failure[1024])
{
  struct world w;
  struct enumeration e = {
    .state = { .w = &w, .rng = { options->seed } },
    .options = options, .stats = stats, .failure = failure,
  };
  bool ok = false;

  failure[0] = '\0';
  world_open (&w, workload->spec, workload->l2_cache);
  w.log.fault = workload->fault;
  memory_alloc_log = workload->fault.kind == MEMORY_ALLOC ? &w.log : NULL;
  w.expect_errors = workload->fault.nth;
  if (w.expect_errors)
    w.fault_kind = workload->fault.kind;
  w.fault_lasts = workload->fault.lasting;
  for (size_t i = 0; i < workload->steps && w.failure[0] == '\0'; i++) {
    if (getenv ("QCOW2EXT_TEST_VERBOSE"))
      world_show_step (&w, &workload->step[i]);
    world_step (&w, &workload->step[i]);
  }
  world_close (&w);

  check_errors (&w, &workload->fault);
  stats->faults += w.log.faults_met;
  stats->pauses += w.pauses_met;
  stats->workloads++;
  if (w.failure[0])
    snprintf (failure, 1024, "%s", w.failure);
  else {
    memory_file_copy (&e.state.file[MEMORY_BACKING], &w.start[MEMORY_BACKING]);
    e.state.guest = need (malloc (workload->spec->size));
    e.state.fate = need (malloc (w.sectors));
    ok = enumerate (&e, true) && enumerate (&e, false);
  }
  if (getenv ("QCOW2EXT_TEST_VERBOSE"))
    world_show_log (&w);

  for (unsigned i = 0; i < 2; i++)
    memory_file_free (&e.base[i]);
  memory_files_free (e.state.file);
  free (e.open);
  free (e.choice);
  free (e.state.guest);
  free (e.state.fate);
  free (e.tried.slot);
  checker_free (&e.state.checker);
  world_free (&w);
  return ok;
}
