/* qcow2ext: a power cut at any moment loses nothing that was flushed.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   test-unit-crash                     what 'make check' does
 *   test-unit-crash SECONDS             random workloads with fresh seeds
 *   test-unit-crash IMAGE SEED          one of those again
 *   test-unit-crash IMAGE NAME VARIANT  one of the others again
 *
 * With QCOW2EXT_TEST_VERBOSE=1 the requests, the operations and the engine's
 * messages are shown.
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crash-workloads.h"

#define ROUNDS 4                /* of random workloads over all images */
#define STATES_OF_RANDOM 600
#define STATES_OF_DIRECTED 80
#define QEMU_EVERY 997

static struct crash_stats total;
static unsigned failures;

static void
run (const struct workload *workload, uint64_t seed, uint64_t max_states)
{
  const struct crash_options options = {
    .seed = seed, .max_states = max_states, .qemu_every = QEMU_EVERY,
  };
  char failure[1024];

  if (crash_run (workload, &options, &total, failure))
    return;
  failures++;
  if (strcmp (workload->name, "random") == 0)
    printf ("FAIL: %s %" PRIu64 ": %s\n", workload->spec->name, seed, failure);
  else
    printf ("FAIL: %s %s %u: %s\n", workload->spec->name, workload->name,
            workload->variant, failure);
}

static void
run_random (const struct image_spec *spec, uint64_t seed)
{
  struct rng rng = { seed };
  struct workload workload;

  workload_random (&workload, spec, &rng, 8 + rng_below (&rng, 24));
  run (&workload, seed, STATES_OF_RANDOM);
  workload_free (&workload);
}

/* All of them, or the one that is asked for. */
static void
run_directed (const char *spec, const char *name, unsigned variant)
{
  struct directed_cursor at = { 0 };
  struct workload workload;

  while (crash_directed (&at, &workload)) {
    if (name == NULL)
      run (&workload, 0, STATES_OF_DIRECTED);
    else if (strcmp (spec, workload.spec->name) == 0
             && strcmp (name, workload.name) == 0
             && variant == workload.variant)
      run (&workload, 0, 0);
    workload_free (&workload);
  }
}

int
main (int argc, char *argv[])
{
  const time_t begin = time (NULL);
  uint64_t seed = 1;

  crash_quiet ();
  setvbuf (stdout, NULL, _IOLBF, 0);
  switch (argc) {
  case 4:
    run_directed (argv[1], argv[2], strtoul (argv[3], NULL, 0));
    break;
  case 3:
    run_random (crash_spec (argv[1]), strtoull (argv[2], NULL, 0));
    break;
  case 2:
    seed = (uint64_t) begin << 20;
    printf ("seeds from %" PRIu64 "\n", seed);
    while (time (NULL) - begin < strtol (argv[1], NULL, 0))
      for (const struct image_spec *s = crash_specs; s->name; s++)
        run_random (s, seed++);
    break;
  default:
    run_directed (NULL, NULL, 0);
    printf ("%" PRIu64 " distinct states in directed workloads\n",
            total.distinct);
    for (unsigned i = 0; i < ROUNDS; i++)
      for (const struct image_spec *s = crash_specs; s->name; s++)
        run_random (s, seed++);
    break;
  }

  printf ("%" PRIu64 " distinct states (%" PRIu64 " built), %" PRIu64 " of "
          "them seen by qemu-img check, %u failures, %ld seconds\n",
          total.distinct, total.built, total.by_qemu, failures,
          (long) (time (NULL) - begin));
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
