/* qcow2ext: what is done to an image.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image-maker.h"
#include "rng.h"
#include "store-memory.h"

enum request_kind { WRITE, ZERO, TRIM, FLUSH, SETTLE, READ, REQUEST_KINDS };

struct request {
  enum request_kind kind;
  uint64_t offset, length;      /* bytes */
  unsigned flags;               /* ZERO: IMAGE_ZERO_*; SETTLE: SETTLE_* */
};

/* Nobody has done anything for a while; close the image and open it again. */
#define SETTLE_IDLE 1
#define SETTLE_REOPEN 2

#define MAX_DURING 8

/* A request.  If it is paused, that is at the nth operation of a kind that it
 * does on a file, before or after it; then another thread does what is in
 * "during".  If that has to wait for the request, it goes on.
 */
struct step {
  struct request request;
  struct {
    unsigned nth;               /* from 1; 0: not paused */
    int kind;                   /* enum memory_kind; -1: any but reads */
    int file;                   /* -1: any */
    bool after;
    bool patient;               /* "during" has no reason to wait for us */
    bool together;              /* each of "during" has a thread of its own */
  } pause;
  struct request during[MAX_DURING];
  unsigned n_during;
  bool races;                   /* some of "during" touch the same sectors, so
                                   that the order is anybody's guess */
};

struct workload {
  const char *name;
  unsigned variant;
  const struct image_spec *spec;
  struct step *step;
  size_t steps;
  size_t l2_cache;              /* bytes; 0: plenty */
  struct memory_fault fault;    /* nth 0: none */
};

/* A workload from random numbers, of at most so many steps. */
void workload_random (struct workload *workload,
                      const struct image_spec *spec, struct rng *rng,
                      size_t steps);
void workload_free (struct workload *workload);

#endif /* WORKLOAD_H */
