/* qcow2ext: what a request works with that changes the image.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each part of the writing side owns its state and its lock; this struct only
 * holds them together.  It is made, started and ended by image/writer.c.
 *
 * Order of the locks, each of which is taken only after those before it:
 *
 *   start_lock, the tracker's lock  the first change; bitmaps
 *   range lock                      of a guest range
 *   commit's turn                   not a mutex that is held: one at a time
 *   change lock, load locks, cache  tables               } never both of
 *   space lock                      counts, allocation   } these two
 *   leaves, one at a time: deferred frees (after the change lock, too), epochs,
 *   metadata map (after either), known holes, range-locks' mutex, in-place
 */

#ifndef QCOW2_WRITER_H
#define QCOW2_WRITER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "commit/commit.h"
#include "commit/health.h"
#include "data/in-place.h"
#include "data/place.h"
#include "data/range-lock.h"
#include "data/write-options.h"
#include "map/mapping-update.h"
#include "space/deferred-free.h"
#include "space/epochs.h"
#include "space/metadata-map.h"
#include "space/refcounts.h"

struct encoder;
struct image_write_env;
struct tracker;

struct writer {
  struct layer *layer;
  struct health health;
  struct commit commit;
  struct epochs changes;        /* changes of entries, and, where bitmaps
                                   record, all requests that change something */
  struct metadata_map metadata;
  struct refcounts counts;
  struct deferred_free frees;
  struct mapping_update update;
  struct range_locks ranges;
  struct in_place in_place;
  struct place place;
  struct write_options options;
  struct encoder *encoder;      /* of options.compress; or NULL */
  struct tracker *tracker;      /* of bitmaps; NULL: none records changes */

  /* Of image/writer.c: the first change is prepared for, once. */
  int (*start) (struct writer *w); /* 0 or -errno */
  const struct image_write_env *env;
  pthread_mutex_t start_lock;
  atomic_bool started;
  int start_error;              /* what that failed with */
  atomic_bool refused;          /* it failed, and nothing had been changed */

  atomic_bool inherited;        /* what was there when the image was opened
                                   may not be durable: nobody has flushed */
  atomic_bool said_no_space;    /* the log says that there is none */
  atomic_bool active;           /* written to since settling last looked */
  atomic_bool settled;          /* nothing was written since settling */
};

#endif /* QCOW2_WRITER_H */
