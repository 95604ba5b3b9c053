/* qcow2ext: random workloads.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdlib.h>
#include <string.h>

#include "need.h"
#include "workload.h"
#include "image/image.h"

static void
random_request (struct request *q, const struct image_spec *spec,
                struct rng *rng)
{
  static const enum request_kind kinds[] = {
    WRITE, WRITE, WRITE, WRITE, WRITE, WRITE, ZERO, ZERO, TRIM, TRIM, FLUSH,
    FLUSH, FLUSH, READ, SETTLE
  };
  const uint64_t cluster = UINT64_C (1) << spec->cluster_bits;
  const uint64_t clusters = (spec->size + cluster - 1) / cluster;
  uint64_t offset, length;

  memset (q, 0, sizeof *q);
  q->kind = kinds[rng_below (rng, sizeof kinds / sizeof kinds[0])];
  if (q->kind == FLUSH)
    return;
  if (q->kind == SETTLE) {
    q->flags = rng_below (rng, 3) == 0;
    return;
  }

  /* Not too far apart, so that things happen to the same clusters. */
  offset = rng_below (rng, clusters);
  if (rng_below (rng, 4))
    offset = offset % 8 + (clusters > 64 && rng_below (rng, 3) == 0 ? 60 : 0);
  offset *= cluster;
  length = cluster * (1 + rng_below (rng, rng_below (rng, 5) ? 2 : 6));
  if (rng_below (rng, 3)) {
    offset += rng_below (rng, cluster / MEMORY_SECTOR) * MEMORY_SECTOR;
    length = (1 + rng_below (rng, 2 * cluster / MEMORY_SECTOR))
      * MEMORY_SECTOR;
  }
  if (offset >= spec->size)
    offset = spec->size - MEMORY_SECTOR;
  if (length > spec->size - offset)
    length = spec->size - offset;
  if (q->kind != READ && rng_below (rng, 16) == 0) {
    const uint64_t skip = rng_below (rng, 2) ? rng_below (rng, 500) : 0;

    offset += skip;
    length -= skip;
    length -= rng_below (rng, length < 500 ? length : 500);
  }
  q->offset = offset;
  q->length = length;
  if (q->kind == ZERO)
    q->flags = (rng_below (rng, 2) ? IMAGE_ZERO_UNMAP : 0)
      | (rng_below (rng, 4) == 0 ? IMAGE_ZERO_FAST : 0);
}

static bool
share_sectors (const struct request *a, const struct request *b)
{
  if (a->length == 0 || b->length == 0 || (a->kind == READ && b->kind == READ))
    return false;
  return a->offset / MEMORY_SECTOR
      <= (b->offset + b->length - 1) / MEMORY_SECTOR
    && b->offset / MEMORY_SECTOR
      <= (a->offset + a->length - 1) / MEMORY_SECTOR;
}

void
workload_random (struct workload *workload, const struct image_spec *spec,
                 struct rng *rng, size_t steps)
{
  memset (workload, 0, sizeof *workload);
  workload->name = "random";
  workload->spec = spec;
  workload->step = need (calloc (steps, sizeof *workload->step));
  workload->steps = steps;
  if (rng_below (rng, 4) == 0)
    workload->l2_cache = 3 << spec->cluster_bits;

  for (size_t i = 0; i < steps; i++) {
    struct step *s = &workload->step[i];

    random_request (&s->request, spec, rng);
    if (rng_below (rng, 3))
      continue;
    s->pause.nth = 1 + rng_below (rng, 5);
    s->pause.kind = rng_below (rng, 8) ? -1 : MEMORY_READ;
    if (rng_below (rng, 4) == 0)
      s->pause.kind = MEMORY_FLUSH;
    s->pause.file = -1;
    s->pause.after = rng_below (rng, 2);
    s->n_during = 1 + rng_below (rng, 4);
    for (unsigned j = 0; j < s->n_during; j++)
      do
        random_request (&s->during[j], spec, rng);
      while (share_sectors (&s->request, &s->during[j])
             || s->during[j].kind == SETTLE);
  }
}

void
workload_free (struct workload *workload)
{
  free (workload->step);
  memset (workload, 0, sizeof *workload);
}
