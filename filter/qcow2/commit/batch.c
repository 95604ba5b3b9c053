/* qcow2ext: bytes that a commit is to write to the image file.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "commit/batch.h"

struct patch {
  struct patch *next;
  uint64_t offset;
  size_t length;
  _Alignas (uint64_t) uint8_t data[]; /* of entries, mostly */
};

void
batch_init (struct batch *b)
{
  for (unsigned i = 0; i < BATCH_STAGES; i++) {
    b->first[i] = NULL;
    b->last[i] = &b->first[i];
  }
  b->bytes = 0;
}

void
batch_free (struct batch *b)
{
  for (unsigned i = 0; i < BATCH_STAGES; i++)
    while (b->first[i]) {
      struct patch *p = b->first[i];

      b->first[i] = p->next;
      free (p);
    }
  batch_init (b);
}

int
batch_add (struct batch *b, enum batch_stage stage, uint64_t offset,
           size_t length, void **data)
{
  struct patch *p = malloc (sizeof *p + length);

  if (p == NULL)
    return -ENOMEM;
  p->next = NULL;
  p->offset = offset;
  p->length = length;
  *b->last[stage] = p;
  b->last[stage] = &p->next;
  b->bytes += length;
  *data = p->data;
  return 0;
}

void
batch_move (struct batch *to, struct batch *from)
{
  for (unsigned i = 0; i < BATCH_STAGES; i++)
    if (from->first[i]) {
      *to->last[i] = from->first[i];
      to->last[i] = from->last[i];
    }
  to->bytes += from->bytes;
  batch_init (from);
}

int
batch_write (const struct batch *b, enum batch_stage stage,
             struct store *file, struct report_limit *limit)
{
  for (const struct patch *p = b->first[stage]; p; p = p->next) {
    const int r = store_pwrite (file, p->data, p->length, p->offset);

    if (r < 0) {
      report_limited (limit, "%s: metadata could not be written: %s",
                      file->name, strerror (-r));
      return r;
    }
  }
  return 0;
}
