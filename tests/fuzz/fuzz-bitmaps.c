/* qcow2ext: fuzzes dirty bitmaps.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is a choice of the header, the file from cluster 1 on, the
 * bitmaps extension without its reserved field (4 bytes for their number, 2
 * for the directory's size, 1 for its cluster), then requests.  The bitmaps
 * "records" and "still" are shown; then the disk is written to.
 */

#include "build-config.h"

#include <string.h>

#include "fuzz.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const char *const shown[] = { "records", "still", NULL };
  struct hostile_request request[FUZZ_REQUESTS];
  struct memory_file *file, *f;
  const size_t n = fuzz_requests (data, &size, request);
  struct fuzz_layout layout;
  const uint8_t *extension;
  uint64_t pos = 112;

  if (size < FUZZ_CHOICE + 7 || (data[0] & 32))
    return 0;
  size -= 7;
  extension = data + size;
  file = fuzz_layout_files (data, size, &layout);
  f = &file[MEMORY_IMAGE];
  if (layout.external)
    pos += 16;
  hostile_put (f, pos, 4, 0x23852875);
  hostile_put (f, pos + 4, 4, 24);
  memory_file_write (f, extension, 4, pos + 8);
  hostile_put (f, pos + 16, 8, extension[4] << 8 | extension[5]);
  hostile_put (f, pos + 24, 8, extension[6] * layout.cluster);
  hostile_put (f, 88, 8, 1);
  for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
    struct hostile_run run = {
      .file = file, .writable = true, .bitmap = shown[i],
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
  uint64_t pos = 104;
  size_t size;

  if (!base->bitmaps)
    return 0;
  size = fuzz_layout_seed (base, image, input, room - 7);
  if (size == 0)
    return 0;
  while (hostile_get (image, pos, 4) != 0x23852875)
    pos += 8 + ((hostile_get (image, pos + 4, 4) + 7) & ~UINT64_C (7));
  memcpy (input + size, image->bytes + pos + 8, 4);
  input[size + 4] = hostile_get (image, pos + 16, 8) >> 8;
  input[size + 5] = hostile_get (image, pos + 16, 8);
  input[size + 6] =
    hostile_get (image, pos + 24, 8) >> base->spec.cluster_bits;
  return fuzz_add_requests (input, size + 7, room);
}
