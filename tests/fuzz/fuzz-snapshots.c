/* qcow2ext: fuzzes the snapshot table and what it leads to.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is a choice of the header, the number of snapshots (0 to 255), the
 * cluster where their table is, the file from cluster 1 on, then requests.
 * The snapshots "1" and "snap" are read; then the disk is written to.
 */

#include "build-config.h"

#include <string.h>

#include "fuzz.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const char *const shown[] = { "1", "snap", NULL };
  struct hostile_request request[FUZZ_REQUESTS];
  struct memory_file *file;
  struct fuzz_layout layout;
  uint8_t count, where;

  const size_t n = fuzz_requests (data, &size, request);
  if (size < FUZZ_CHOICE + 2)
    return 0;
  where = data[--size];
  count = data[--size];
  file = fuzz_layout_files (data, size, &layout);
  hostile_put (&file[MEMORY_IMAGE], 60, 4, count);
  hostile_put (&file[MEMORY_IMAGE], 64, 8, where * layout.cluster);
  for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
    struct hostile_run run = {
      .file = file, .writable = true, .snapshot = shown[i],
      .request = request, .requests = n,
    };

    fuzz_run (&run);
  }
  return 0;
}

size_t
fuzz_seed (const struct hostile_base *base, const struct memory_file *image,
           uint8_t *input, size_t room)
{
  size_t size;

  if (!base->spec.snapshot)
    return 0;
  size = fuzz_layout_seed (base, image, input, room - 2);
  if (size == 0)
    return 0;
  input[size++] = 1;
  input[size++] = hostile_get (image, 64, 8) >> base->spec.cluster_bits;
  return fuzz_add_requests (input, size, room);
}
