/* qcow2ext: what the engine does to files, as one line a workload.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * For changes that must not change behaviour: built in two trees, this prints
 * the same if in both the crash tests' workloads lead to the same operations,
 * with the same bytes, in the same order.  Requests that the tests do while
 * another one is stopped are left out: their order is up to the threads.
 *
 *   record-operations [ROUNDS]   random workloads for each image; default 20
 *   record-operations -u [ROUNDS]
 *                                the same, but the order of writes between two
 *                                flushes does not count, and workloads in which
 *                                something is made to fail are left out
 *   record-operations IMAGE NAME VARIANT|SEED
 *                                every operation of one workload
 *
 * lib/compare-operations.sh runs it in two build directories.
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash-workloads.h"

static const char *only_image, *only_name;
static uint64_t only_number;
static bool unordered;

/* FNV-1a. */
static uint64_t
hash_bytes (uint64_t hash, const void *data, size_t length)
{
  const uint8_t *p = data;

  for (size_t i = 0; i < length; i++)
    hash = (hash ^ p[i]) * UINT64_C (0x100000001b3);
  return hash;
}

static uint64_t
hash_op (uint64_t hash, const struct memory_op *op)
{
  const uint64_t field[] = {
    op->kind, op->file, op->failed, op->offset, op->length
  };

  hash = hash_bytes (hash, field, sizeof field);
  if (op->kind == MEMORY_WRITE)
    hash = hash_bytes (hash, op->data, op->length);
  return hash;
}

/* Between flushes, a sum of hashes is the same in any order. */
static uint64_t
hash_log (const struct memory_log *log)
{
  uint64_t hash = UINT64_C (0xcbf29ce484222325), sum = 0;

  for (size_t i = 0; i < log->count; i++) {
    const struct memory_op *op = &log->op[i];

    if (!unordered)
      hash = hash_op (hash, op);
    else if (op->kind == MEMORY_WRITE)
      sum += hash_op (0, op);
    else {
      hash = hash_op (hash_bytes (hash, &sum, sizeof sum), op);
      sum = 0;
    }
  }
  return hash_bytes (hash, &sum, sizeof sum);
}

static void
print_op (const struct memory_op *op)
{
  printf ("  %s file %u offset %" PRIu64 " length %" PRIu64 " hash %016" PRIx64
          "%s\n", memory_kind_name (op->kind), op->file, op->offset,
          op->length, hash_op (0, op), op->failed ? " failed" : "");
}

/* One request after the other, whatever the workload has in mind. */
static void
take_turns (struct workload *workload)
{
  for (size_t i = 0; i < workload->steps; i++) {
    workload->step[i].pause.nth = 0;
    workload->step[i].n_during = 0;
  }
}

static void
record (struct workload *workload, uint64_t number)
{
  struct world w;

  if (only_image
      && (strcmp (workload->spec->name, only_image)
          || strcmp (workload->name, only_name) || number != only_number))
    return;
  if (unordered && workload->fault.nth)
    return;
  take_turns (workload);

  world_open (&w, workload->spec, workload->l2_cache);
  w.log.fault = workload->fault;
  w.expect_errors = workload->fault.nth > 0;
  w.fault_kind = workload->fault.kind;
  w.fault_lasts = workload->fault.lasting;
  for (size_t i = 0; i < workload->steps; i++)
    world_step (&w, &workload->step[i]);
  world_close (&w);
  printf ("%s %s %" PRIu64 ": %zu operations, %016" PRIx64 "\n",
          workload->spec->name, workload->name, number, w.log.count,
          hash_log (&w.log));
  for (size_t i = 0; only_image && i < w.log.count; i++)
    print_op (&w.log.op[i]);
  world_free (&w);
}

int
main (int argc, char *argv[])
{
  struct directed_cursor at = { 0 };
  struct workload workload;
  unsigned rounds;

  if (argc > 1 && strcmp (argv[1], "-u") == 0) {
    unordered = true;
    argc--;
    argv++;
  }
  rounds = argc == 2 ? strtoul (argv[1], NULL, 0) : 20;
  if (argc == 4) {
    only_image = argv[1];
    only_name = argv[2];
    only_number = strtoull (argv[3], NULL, 0);
  }
  else if (argc > 2) {
    fprintf (stderr, "usage: %s [[-u] ROUNDS | IMAGE NAME VARIANT]\n", argv[0]);
    return EXIT_FAILURE;
  }
  crash_quiet ();
  while (crash_directed (&at, &workload)) {
    record (&workload, workload.variant);
    workload_free (&workload);
  }
  for (const struct image_spec *spec = crash_specs; spec->name; spec++)
    for (unsigned seed = 1; seed <= rounds; seed++) {
      struct rng rng = { seed };

      workload_random (&workload, spec, &rng, 8 + rng_below (&rng, 24));
      record (&workload, seed);
      workload_free (&workload);
    }
  return EXIT_SUCCESS;
}
