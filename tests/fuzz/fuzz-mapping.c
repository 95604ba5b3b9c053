/* qcow2ext: fuzzes L1 and L2 tables.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is a choice of the header, the file from cluster 1 on, then
 * requests.  The disk is only read; besides what a session watches, a look-up
 * from the middle of a run must agree with the one from its start.
 */

#include "build-config.h"

#include <inttypes.h>
#include <string.h>

#include "fuzz.h"
#include "image/chain.h"
#include "image/image.h"
#include "map/mapping.h"

#define LOOK_UPS 64

static void
compare (struct image *image, uint64_t offset, const struct run *run)
{
  /* Runs of what cannot be merged end anywhere within a cluster. */
  const uint64_t skips[] = { 1, 511, 512, run->length / 2, run->length - 1 };

  for (size_t i = 0; i < sizeof skips / sizeof skips[0]; i++) {
    const uint64_t skip = skips[i];
    struct run part;

    if (skip == 0 || skip >= run->length)
      continue;
    mapping_lookup (image->top, offset + skip, run->length - skip, &part);
    if (part.type != run->type)
      fuzz_fail ("offset 0x%" PRIx64 " is of type %d, but %d from 0x%" PRIx64,
                 offset + skip, part.type, run->type, offset);
    if (run->type == RUN_DATA
        && (part.host != run->host + skip || part.copied != run->copied))
      fuzz_fail ("offset 0x%" PRIx64 " is at 0x%" PRIx64 ", but 0x%" PRIx64
                 " from 0x%" PRIx64, offset + skip, part.host,
                 run->host + skip, offset);
  }
}

static void
look_up (struct memory_file *file)
{
  struct image *image = fuzz_open (file);
  uint64_t offset = 0;
  struct run run;

  if (image == NULL)
    return;
  for (unsigned i = 0; i < LOOK_UPS && offset < image_size (image);
       i++, offset += run.length) {
    mapping_lookup (image->top, offset, image_size (image) - offset, &run);
    if (run.length == 0 || run.length > image_size (image) - offset)
      fuzz_fail ("a run of 0x%" PRIx64 " bytes at 0x%" PRIx64, run.length,
                 offset);
    if (run.type == RUN_INVALID && run.error >= 0)
      fuzz_fail ("an invalid run without an error at 0x%" PRIx64, offset);
    compare (image, offset, &run);
  }
  image_close (image);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct hostile_request request[FUZZ_REQUESTS];
  struct memory_file *file;
  struct hostile_run run = { .file = NULL };
  struct fuzz_layout layout;

  run.request = request;
  run.requests = fuzz_requests (data, &size, request);
  if (size < FUZZ_CHOICE)
    return 0;
  file = fuzz_layout_files (data, size, &layout);
  run.file = file;
  look_up (file);
  fuzz_run (&run);
  return 0;
}

size_t
fuzz_seed (const struct hostile_base *base, const struct memory_file *image,
           uint8_t *input, size_t room)
{
  const size_t size = fuzz_layout_seed (base, image, input, room);

  return size ? fuzz_add_requests (input, size, room) : 0;
}
