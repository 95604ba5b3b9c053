/* qcow2ext: may the image still be written to?
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   sound --a flush or a header patch fails, the image is unsound--> failed
 *
 * Failed is for good: the kernel may have dropped what it could not write, so
 * that a flush that is tried again reports a success that is not there.  Only
 * opening the image anew looks at what is really on disk.
 *
 * All flushes and all changes of the header go through here, so that none can
 * fail and be forgotten.  Any thread may call these functions, holding any
 * lock of the engine; they take none, and do I/O.
 */

#ifndef QCOW2_HEALTH_H
#define QCOW2_HEALTH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/store.h"
#include "disk/header.h"

struct health {
  struct store *file;           /* the image file */
  struct header *header;        /* learns of the corrupt bit */
  atomic_bool failed;
};

/* What a flush is for. */
enum flush_reason {
  FLUSH_NEW,                    /* data and tables, before pointers */
  FLUSH_POINTERS,               /* L1 and L2 entries */
  FLUSH_GROWTH,                 /* a refcount block or table, linked at once */
  FLUSH_BITMAPS,                /* bitmaps, their tables, their marks */
  FLUSH_REPAIR,                 /* repaired refcounts */
  FLUSH_INHERITED,              /* what an earlier server may have written */
};

static inline bool
health_ok (const struct health *h)
{
  return !atomic_load_explicit (&h->failed, memory_order_relaxed);
}

/* Stops all writing.  Reports why, once.  Returns -EIO. */
int health_fail (struct health *h, const char *why);

/* Likewise, and marks the image corrupt, for it is to blame. */
int health_mark_corrupt (struct health *h, const char *why);

/* Flushes a store; if that fails, stops all writing.  Returns 0 or -errno. */
int health_flush (struct health *h, struct store *store,
                  enum flush_reason reason);

/* Writes a few bytes of the header, within one sector, and makes them durable;
 * if that fails, stops all writing.  Returns 0 or -errno.
 */
int health_patch_header (struct health *h, uint64_t offset, const void *data,
                         size_t len);

#endif /* QCOW2_HEALTH_H */
