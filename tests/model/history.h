/* qcow2ext: what a sector has held, and may hold after a crash.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef HISTORY_H
#define HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store-memory.h"

/* What happens is numbered, because not all of it shows in the log. */
struct version {
  size_t issued;                /* position in the log */
  size_t done;                  /* event; SIZE_MAX: never */
  uint8_t *bytes;               /* NULL: zeros */
};

struct history {
  struct version *version;
  size_t count, room;
  bool partial;                 /* was written to in part */
};

/* What has happened to a sector since the start. */
enum fate { UNTOUCHED, PERHAPS, CHANGED };

struct version *history_latest (struct history *h);
/* bytes: MEMORY_SECTOR of them, which are copied; NULL: zeros. */
void history_push (struct history *h, size_t issued, size_t done,
                   const uint8_t *bytes);
bool version_is (const struct version *v, const uint8_t *bytes);

/* The last version that was done at an event. */
size_t history_at (const struct history *h, size_t event);

/* Is this one of the versions from first on that were issued before the cut?
 * A sector that is written to in part may have parts of several.
 */
bool history_allows (const struct history *h, size_t first, size_t cut,
                     const uint8_t *bytes);

/* Was a sector ever something else than at the start, up to a version?  What
 * has failed without a trace counts as a version, too.
 */
bool history_was_changed (const struct history *h, size_t last);

/* What has become of a sector, if "first" of it is the oldest version that
 * may be there and those issued before the cut may be there as well.
 */
enum fate history_fate (const struct history *h, const uint8_t *bytes,
                        size_t first, size_t cut);

/* What a sector holds, in words. */
const char *history_describe (const struct history *h, const uint8_t *bytes,
                              char buf[128]);

void history_free (struct history *h);

#endif /* HISTORY_H */
