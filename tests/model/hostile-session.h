/* qcow2ext: the use of a hostile image, from opening it to closing it.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef HOSTILE_SESSION_H
#define HOSTILE_SESSION_H

#include "hostile.h"
#include "image-checker.h"
#include "image-walker.h"

struct image;

/* Each word of what the guest writes begins with this; the sectors' numbers
 * follow.
 */
#define GUEST UINT64_C (0xa5c3a5c3)

struct session {
  struct hostile_run *run;
  struct image *image;
  struct memory_log log;
  struct walker walker;         /* what is protected */
  struct walker now;            /* scratch */
  bool walked;                  /* the walker has seen the file as it is */
  struct checker checker;
  uint64_t start_size;          /* of the image file, when opened */
  unsigned messages;            /* until then */
  uint64_t operations;          /* in this request */
  uint64_t budget;              /* for operations in one request */
  bool changing;                /* a request that may change something ran */
  bool judging;
  bool was_dirty;               /* counts may be rebuilt */

  /* The model of a sound image. */
  uint8_t *guest, *snapshot;    /* NULL: there is none */
  uint8_t *known;               /* enum known, for each sector */
  uint64_t size;
  uint32_t number;
};

/* The first failure counts. */
void session_fail (struct session *s, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

/* Judges an operation of the engine on a file, before it is done (struct
 * memory_log's hook).
 */
void session_judge (void *opaque, const struct memory_op *op, bool before);

#endif /* HOSTILE_SESSION_H */
