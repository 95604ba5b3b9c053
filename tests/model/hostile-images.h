/* qcow2ext: sound images that lies are told about.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef HOSTILE_IMAGES_H
#define HOSTILE_IMAGES_H

#include <stdbool.h>

#include "image-maker.h"
#include "store-memory.h"

struct hostile_base {
  struct image_spec spec;
  bool bitmaps;                 /* one that records, one that does not, and
                                   one without bits */
};

/* Ends with a NULL name.  The files are small. */
extern const struct hostile_base hostile_bases[];

/* Makes MEMORY_FILES files. */
void hostile_make (const struct hostile_base *base, struct memory_file *file);

/* Stores a big-endian number. */
void hostile_put (struct memory_file *f, uint64_t offset, unsigned bytes,
                  uint64_t v);
uint64_t hostile_get (const struct memory_file *f, uint64_t offset,
                      unsigned bytes);

#endif /* HOSTILE_IMAGES_H */
