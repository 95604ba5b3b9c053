/* qcow2ext: what a sector has held, and may hold after a crash.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "history.h"
#include "image-maker.h"
#include "need.h"

static bool
is_zero (const uint8_t *p)
{
  return p[0] == 0 && memcmp (p, p + 1, MEMORY_SECTOR - 1) == 0;
}

struct version *
history_latest (struct history *h)
{
  return &h->version[h->count - 1];
}

void
history_push (struct history *h, size_t issued, size_t done,
              const uint8_t *bytes)
{
  struct version *v;

  if (h->count == h->room) {
    h->room = h->room ? 2 * h->room : 4;
    h->version = need (realloc (h->version, h->room * sizeof *h->version));
  }
  v = &h->version[h->count++];
  v->issued = issued;
  v->done = done;
  v->bytes = NULL;
  if (bytes && !is_zero (bytes)) {
    v->bytes = need (malloc (MEMORY_SECTOR));
    memcpy (v->bytes, bytes, MEMORY_SECTOR);
  }
}

bool
version_is (const struct version *v, const uint8_t *bytes)
{
  return v->bytes ? memcmp (v->bytes, bytes, MEMORY_SECTOR) == 0
                  : is_zero (bytes);
}

size_t
history_at (const struct history *h, size_t event)
{
  size_t i = h->count - 1;

  while (i > 0 && (h->version[i].done == SIZE_MAX
                   || h->version[i].done > event))
    i--;
  return i;
}

bool
history_allows (const struct history *h, size_t first, size_t cut,
                const uint8_t *bytes)
{
  for (size_t i = h->count; i-- > first;)
    if ((i == first || h->version[i].issued < cut)
        && version_is (&h->version[i], bytes))
      return true;
  if (!h->partial)
    return false;
  for (unsigned b = 0; b < MEMORY_SECTOR; b++) {
    bool found = false;

    for (size_t i = h->count; i-- > first && !found;)
      if (i == first || h->version[i].issued < cut)
        found = (h->version[i].bytes ? h->version[i].bytes[b] : 0)
          == bytes[b];
    if (!found)
      return false;
  }
  return true;
}

static bool
same_version (const struct version *a, const struct version *b)
{
  return a->bytes && b->bytes
    ? memcmp (a->bytes, b->bytes, MEMORY_SECTOR) == 0 : a->bytes == b->bytes;
}

bool
history_was_changed (const struct history *h, size_t last)
{
  for (size_t i = 1; i <= last; i++)
    if (h->version[i].done != SIZE_MAX
        && !same_version (&h->version[i], &h->version[0]))
      return true;
  return false;
}

enum fate
history_fate (const struct history *h, const uint8_t *bytes, size_t first,
              size_t cut)
{
  if (history_was_changed (h, first)
      || !version_is (&h->version[0], bytes))
    return CHANGED;
  for (size_t i = 1; i < h->count; i++)
    if (h->version[i].issued < cut)
      return PERHAPS;
  return UNTOUCHED;
}

const char *
history_describe (const struct history *h, const uint8_t *bytes, char buf[128])
{
  uint64_t word = 0;

  for (unsigned i = 0; i < 8; i++)
    word = word << 8 | bytes[i];
  for (size_t i = h->count; i-- > 0;)
    if (version_is (&h->version[i], bytes)) {
      snprintf (buf, 128, "its version %zu of %zu (%016" PRIx64 ")", i,
                h->count - 1, word);
      return buf;
    }
  snprintf (buf, 128, "%016" PRIx64 ", which is %s", word,
            (word >> 32) == PATTERN_OLD ? "old bytes" : "none of its own");
  return buf;
}

void
history_free (struct history *h)
{
  for (size_t i = 0; i < h->count; i++)
    free (h->version[i].bytes);
  free (h->version);
}
