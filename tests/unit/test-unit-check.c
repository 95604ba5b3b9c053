/* qcow2ext: the check finds what qemu-img check finds.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Both judge images that lie.
 *
 *   test-unit-check                     all that it tells
 *   test-unit-check NAME                the lies whose names begin so, with
 *                                       what both say
 */

#include "build-config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "crash.h"
#include "image/chain.h"
#include "image/check.h"
#include "lies.h"
#include "map/layer.h"

#define EVERY_SHORT 13          /* make check tells each of so many */

static const char *wanted;      /* NULL: all */
static char dir[200];
static unsigned lies, compared, failures;

struct verdict {
  uint64_t errors, leaks;
};

static void
write_file (const char *name, const struct memory_file *f)
{
  char path[256];
  FILE *fp;

  snprintf (path, sizeof path, "%s/%s", dir, name);
  fp = fopen (path, "w");
  CHECK (fp != NULL);
  CHECK (f->size == 0 || fwrite (f->bytes, f->size, 1, fp) == 1);
  CHECK (fclose (fp) == 0);
}

static uint64_t
number (const char *json, const char *name)
{
  const char *p = strstr (json, name);

  return p ? strtoull (p + strlen (name), NULL, 10) : 0;
}

/* Returns false if QEMU does not want to judge the image. */
static bool
ask_qemu (const struct lie *lie, struct verdict *v)
{
  static const char *const names[MEMORY_FILES] = { "image", "data", "backing" };
  char command[300], answer[8192];
  size_t n;
  FILE *fp;

  for (unsigned i = 0; i < MEMORY_FILES; i++)
    write_file (names[i], &lie->file[i]);
  snprintf (command, sizeof command, "cd %s && qemu-img check --output=json "
            "-f qcow2 image%s", dir, wanted ? "" : " 2>/dev/null");
  fp = popen (command, "r");
  CHECK (fp != NULL);
  n = fread (answer, 1, sizeof answer - 1, fp);
  answer[n] = '\0';
  pclose (fp);
  v->errors = number (answer, "\"corruptions\": ");
  v->leaks = number (answer, "\"leaks\": ");
  return strstr (answer, "\"filename\"")
    && number (answer, "\"check-errors\": ") == 0;
}

/* Likewise the engine. */
static bool
ask_engine (const struct lie *lie, struct verdict *v)
{
  struct memory_file file[MEMORY_FILES] = { 0 };
  struct files files = { .file = file };
  struct check_result result = { 0 };
  struct image *image;
  bool ok = false;

  for (unsigned i = 0; i < MEMORY_FILES; i++)
    memory_file_copy (&file[i], &lie->file[i]);
  if (files_open (&files, false, 0, &image) == 0) {
    memory_in_engine = false;
    ok = layer_check (image->top, wanted != NULL, &result) == 0;
    *v = (struct verdict) { result.errors, result.leaks };
    free (result.counts);
    image_close (image);
  }
  memory_files_free (file);
  return ok;
}

static bool
is_about (const struct lie *lie, const char *const *words)
{
  for (; *words; words++)
    if (strstr (lie->name, *words))
      return true;
  return false;
}

/* Not all errors are counted in the same way; whether there is one is, and
 * leaks are.
 */
static bool
agree (const struct lie *lie, const struct verdict *ours,
       const struct verdict *theirs)
{
  /* One entry, one error; QEMU counts what follows from it, or stops. */
  static const char *const counted_otherwise[] = {
    "all-entries-for-one", "bitmap-table", "extended:", "l1-entr",
    "l1-points", "pair-extended:", "pair:", "points-at-refblock",
    "refcount-order", "reftable", "snapshot-table", "snapshots=", NULL
  };
  /* Where one of the two gives up a table, or QEMU makes up a block. */
  static const char *const leaks_otherwise[] = {
    "bitmap-name", "bitmap-table", "extended:l2-entry", "reftable-entry",
    "snapshot-l1-entries", NULL
  };
  /* In a data file a cluster lies where the guest has it; QEMU does not
   * insist.  Nor does it on names without zero bytes, or on an L1 table without
   * entries that is within the file.
   */
  static const char *const stricter[] = {
    "bitmap-name", "pair:l2-entry", "pair-extended:l2-entry",
    "snapshot-without-l1", NULL
  };
  /* It counts snapshots of the old form as errors. */
  static const char *const laxer[] = {
    "snapshot-extra-size", "snapshot-table-points-at", "snapshots=", NULL
  };

  if (ours->leaks != theirs->leaks && !is_about (lie, leaks_otherwise))
    return false;
  if (ours->errors == 0)
    return theirs->errors == 0 || is_about (lie, laxer);
  if (theirs->errors == 0)
    return is_about (lie, stricter);
  return ours->errors == theirs->errors || is_about (lie, counted_otherwise);
}

static void
tell (const struct lie *lie)
{
  const unsigned every = getenv ("QCOW2EXT_TEST_SHORT") ? EVERY_SHORT : 1;
  struct verdict ours, theirs;
  bool ok;

  if (wanted ? strncmp (wanted, lie->name, strlen (wanted)) != 0
             : !lie->is_true && lies++ % every)
    return;
  if (!ask_engine (lie, &ours) || !ask_qemu (lie, &theirs))
    return;
  compared++;
  ok = agree (lie, &ours, &theirs);
  failures += !ok;
  if (wanted || !ok)
    printf ("%s%s: %" PRIu64 " errors, %" PRIu64 " leaks; QEMU %" PRIu64 ", %"
            PRIu64 "\n", ok ? "" : "FAIL: ", lie->name, ours.errors,
            ours.leaks, theirs.errors, theirs.leaks);
}

int
main (int argc, char *argv[])
{
  const char *tmp = getenv ("TMPDIR");
  char command[300];

  wanted = argc > 1 ? argv[1] : NULL;
  if (!wanted)
    crash_quiet ();
  if (system ("qemu-img --version >/dev/null 2>&1") != 0)
    return 77;
  snprintf (dir, sizeof dir, "%s/qcow2ext-check-XXXXXX", tmp ? tmp : "/tmp");
  CHECK (mkdtemp (dir) != NULL);
  lies_tell (tell);
  snprintf (command, sizeof command, "rm -r %s", dir);
  CHECK (system (command) == 0);
  printf ("%u lies, %u of them judged by both, %u failures\n", lies, compared,
          failures);
  return failures || compared == 0;
}
