/* qcow2ext: the files of an image in memory, opened by the engine.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef FILES_H
#define FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "image/image.h"
#include "store-memory.h"

/* Opens files as they are now. */
struct files {
  struct memory_file *file;     /* MEMORY_FILES of them */
  struct memory_log *log;       /* or NULL */
  bool no_discard, device, data_device;
  struct write_options write;
  struct store *store;          /* of the image file, while open */
};
int files_open (struct files *files, bool writable, size_t l2_cache,
                struct image **image);

#endif /* FILES_H */
