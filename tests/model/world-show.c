/* qcow2ext: what is done in a world, for people.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>

#include "world.h"

void
world_show_log (const struct world *w)
{
  for (size_t i = 0; i < w->log.count; i++) {
    const struct memory_op *op = &w->log.op[i];

    fprintf (stderr, "%4zu %-7s %-5s 0x%" PRIx64 "+0x%" PRIx64 "%s\n", i + 1,
             memory_kind_name (op->kind), op->file ? "data" : "image",
             op->offset, op->length, op->failed ? " failed" : "");
  }
}

static void
show_request (const struct request *q)
{
  static const char *const names[REQUEST_KINDS] = {
    "write", "zero", "trim", "flush", "settle", "read"
  };

  fprintf (stderr, "%s", names[q->kind]);
  if (q->length)
    fprintf (stderr, " sectors %.2f+%.2f",
             (double) q->offset / MEMORY_SECTOR,
             (double) q->length / MEMORY_SECTOR);
  if (q->flags)
    fprintf (stderr, " flags %u", q->flags);
}

void
world_show_step (const struct world *w, const struct step *s)
{
  fprintf (stderr, "%4zu ", w->log.count);
  show_request (&s->request);
  if (s->pause.nth) {
    fprintf (stderr, ", %s its %s %u",
             s->pause.after ? "after" : "before",
             s->pause.kind < 0 ? "change"
                               : memory_kind_name (s->pause.kind),
             s->pause.nth);
    for (unsigned i = 0; i < s->n_during; i++) {
      fprintf (stderr, "; ");
      show_request (&s->during[i]);
    }
  }
  fputc ('\n', stderr);
}
