/* qcow2ext: gives inputs to a fuzz target, without a fuzzer.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   replay-TARGET                       the seeds, each with single bytes
 *                                       changed, from a fixed seed, and what
 *                                       was found before (regress/)
 *   replay-TARGET FILE...               files; -: standard input
 *   replay-TARGET --seeds DIRECTORY     write the seeds into a directory
 */

#include "build-config.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define ROOM (1 << 20)
#define MUTATIONS 20            /* of each seed */

static uint8_t input[ROOM];

static void
replay_file (const char *name)
{
  FILE *f = strcmp (name, "-") == 0 ? stdin : fopen (name, "r");
  uint8_t *copy;
  size_t size;

  if (f == NULL) {
    perror (name);
    exit (EXIT_FAILURE);
  }
  size = fread (input, 1, sizeof input, f);
  if (f != stdin)
    fclose (f);
  /* An overrun shows only in a buffer that ends where it ends. */
  copy = malloc (size ? size : 1);
  if (copy == NULL)
    abort ();
  memcpy (copy, input, size);
  LLVMFuzzerTestOneInput (copy, size);
  free (copy);
}

/* Files in regress/ begin with the name of their target. */
static unsigned long
replay_finds (void)
{
  const char *srcdir = getenv ("srcdir");
  const char *target = strchr (program_invocation_short_name, '-');
  char pattern[4096];
  glob_t found;
  size_t n;

  snprintf (pattern, sizeof pattern, "%s/fuzz/regress/%s-*",
            srcdir ? srcdir : ".", target ? target + 1 : "");
  if (glob (pattern, 0, NULL, &found) != 0)
    return 0;
  for (n = 0; n < found.gl_pathc; n++)
    replay_file (found.gl_pathv[n]);
  globfree (&found);
  return n;
}

static void
write_seed (const char *directory, const char *name, size_t size)
{
  char path[4096];
  FILE *f;

  snprintf (path, sizeof path, "%s/%s", directory, name);
  f = fopen (path, "w");
  if (f == NULL || fwrite (input, 1, size, f) != size || fclose (f) != 0) {
    perror (path);
    exit (EXIT_FAILURE);
  }
}

static uint64_t
next (uint64_t *x)
{
  *x ^= *x << 13;
  *x ^= *x >> 7;
  *x ^= *x << 17;
  return *x;
}

int
main (int argc, char *argv[])
{
  const bool write = argc == 3 && strcmp (argv[1], "--seeds") == 0;
  unsigned long seeds = 0, inputs = 0, finds = 0;
  uint64_t random = 1;

  for (int i = 1; !write && i < argc; i++, inputs++)
    replay_file (argv[i]);
  if (argc > 1 && !write) {
    printf ("%lu inputs\n", inputs);
    return 0;
  }

  for (const struct hostile_base *b = hostile_bases; b->spec.name; b++) {
    struct memory_file file[MEMORY_FILES] = { { 0 } };
    struct hostile_base small = *b;
    size_t size;

    /* The smaller the inputs, the faster the fuzzer. */
    if (small.spec.cluster_bits < 14)
      small.spec.size = UINT64_C (20) << small.spec.cluster_bits;
    if (small.spec.size > b->spec.size)
      small.spec.size = b->spec.size / 2;
    hostile_make (&small, file);
    size = fuzz_seed (&small, &file[MEMORY_IMAGE], input, sizeof input);
    memory_files_free (file);
    if (size == 0)
      continue;
    seeds++;
    if (write) {
      write_seed (argv[2], b->spec.name, size);
      continue;
    }
    LLVMFuzzerTestOneInput (input, size);
    inputs++;
    for (unsigned i = 0; i < MUTATIONS; i++, inputs++) {
      const size_t at = next (&random) % size;
      const uint8_t old = input[at];

      input[at] = next (&random) >> 8;
      LLVMFuzzerTestOneInput (input, size);
      input[at] = old;
    }
  }
  if (!write)
    finds = replay_finds ();
  printf ("%lu seeds, %lu inputs made of them, %lu earlier finds\n", seeds,
          inputs, finds);
  return seeds ? EXIT_SUCCESS : EXIT_FAILURE;
}
