/* qcow2ext: bytes that a commit is to write to the image file.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A batch belongs to one commit, and to one thread.
 */

#ifndef QCOW2_BATCH_H
#define QCOW2_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/report.h"
#include "base/store.h"

/* What is durable before what. */
enum batch_stage {
  BATCH_NEW,                    /* nothing on disk refers to it yet */
  BATCH_POINTERS,               /* refers to what is new */
  BATCH_STAGES
};

struct patch;

struct batch {
  struct patch *first[BATCH_STAGES], **last[BATCH_STAGES];
  size_t bytes;                 /* of what was added */
};

void batch_init (struct batch *b);
void batch_free (struct batch *b); /* leaves it empty */

/* Adds length bytes that belong at offset of the image file.  *data is where
 * the caller puts them; the batch owns it.  Returns 0 or -ENOMEM.
 */
int batch_add (struct batch *b, enum batch_stage stage, uint64_t offset,
               size_t length, void **data);

/* Moves all of "from" to the end of "to". */
void batch_move (struct batch *to, struct batch *from);

static inline bool
batch_is_empty (const struct batch *b, enum batch_stage stage)
{
  return b->first[stage] == NULL;
}

/* Writes a stage in the order in which it was added.  Returns 0 or -errno
 * (reported, within limit).
 */
int batch_write (const struct batch *b, enum batch_stage stage,
                 struct store *file, struct report_limit *limit);

#endif /* QCOW2_BATCH_H */
