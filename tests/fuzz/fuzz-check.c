/* qcow2ext: fuzzes the consistency check and the repair of dirty images.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is a choice of the header (of which the bit "dirty" is always
 * set), the file from cluster 1 on, then requests.  A check says the same
 * twice.  After a repair it finds no wrong count: the image is written to
 * only then.
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image/check.h"
#include "fuzz.h"
#include "image/chain.h"
#include "image/image.h"

/* Returns whether the image could be checked. */
static bool
check (struct memory_file *file, struct check_result *result, bool *dirty)
{
  struct image *image = fuzz_open (file);
  struct check_result again;
  int r, r2;

  if (image == NULL)
    return false;
  *dirty = image->top->header.incompatible & QCOW2_INCOMPAT_DIRTY;
  r = layer_check (image->top, false, result);
  r2 = layer_check (image->top, true, &again);
  if (r != r2 || result->errors != again.errors
      || result->leaks != again.leaks
      || result->wrong_counts != again.wrong_counts
      || result->wrong_flags != again.wrong_flags)
    fuzz_fail ("a check does not say the same twice");
  if (result->wrong_counts + result->wrong_flags > result->errors)
    fuzz_fail ("a check finds %" PRIu64 " errors, but more wrong counts and "
               "flags", result->errors);
  free (result->counts);
  free (again.counts);
  image_close (image);
  return r == 0;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct hostile_request request[FUZZ_REQUESTS];
  struct memory_file *file;
  struct hostile_run run = { .writable = true };
  struct check_result before = { 0 }, after = { 0 };
  struct fuzz_layout layout;
  bool dirty = true;

  run.request = request;
  run.requests = fuzz_requests (data, &size, request);
  if (size < FUZZ_CHOICE)
    return 0;
  file = fuzz_layout_files (data, size, &layout);
  run.file = file;
  if (layout.version == 3)
    hostile_put (&file[MEMORY_IMAGE], 79, 1,
                 hostile_get (&file[MEMORY_IMAGE], 79, 1) | 1);
  if (check (file, &before, &dirty)) {
    fuzz_run (&run);
    if (layout.version == 3 && check (file, &after, &dirty) && !dirty
        && after.errors
        && !(hostile_get (&file[MEMORY_IMAGE], 79, 1) & 2))
      fuzz_fail ("after a repair there are %" PRIu64 " errors",
                 after.errors);
  }
  return 0;
}

size_t
fuzz_seed (const struct hostile_base *base, const struct memory_file *image,
           uint8_t *input, size_t room)
{
  const size_t size = fuzz_layout_seed (base, image, input, room);

  return size ? fuzz_add_requests (input, size, room) : 0;
}
