/* qcow2ext: an image in memory, with a model of what the guest wrote.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "need.h"
#include "world.h"

void
world_fail (struct world *w, const char *fmt, ...)
{
  va_list ap;

  pthread_mutex_lock (&w->log.lock);
  if (w->failure[0] == '\0') {
    va_start (ap, fmt);
    vsnprintf (w->failure, sizeof w->failure, fmt, ap);
    va_end (ap);
  }
  pthread_mutex_unlock (&w->log.lock);
}

const uint8_t *
file_sector (const struct memory_file *f, uint64_t i)
{
  static const uint8_t nothing[MEMORY_SECTOR];

  return (i + 1) * MEMORY_SECTOR <= f->size ? f->bytes + i * MEMORY_SECTOR
                                            : nothing;
}

void
world_open (struct world *w, const struct image_spec *spec, size_t l2_cache)
{
  struct checker c = { 0 };
  int r;

  memset (w, 0, sizeof *w);
  w->spec = spec;
  w->sectors = spec->size / MEMORY_SECTOR;
  w->initial = need (malloc (spec->size));
  w->sector = need (calloc (w->sectors, sizeof *w->sector));
  w->next_number = PATTERN_FIRST;
  pthread_mutex_init (&w->lock, NULL);
  memory_log_init (&w->log);
  make_image (spec, &w->start[MEMORY_IMAGE], &w->start[MEMORY_DATA],
              &w->start[MEMORY_BACKING], w->initial);
  for (unsigned i = 0; i < MEMORY_FILES; i++)
    memory_file_copy (&w->live[i], &w->start[i]);
  for (uint64_t i = 0; i < w->sectors; i++)
    history_push (&w->sector[i], 0, 0, w->initial + i * MEMORY_SECTOR);

  checker_run (&c, &w->start[MEMORY_IMAGE], &w->start[MEMORY_DATA],
               &w->start[MEMORY_BACKING]);
  if (c.errors)
    world_fail (w, "the image-maker's image: %s", c.message);
  else if (memcmp (c.guest, w->initial, spec->size) != 0)
    world_fail (w, "the image-maker's image reads wrong");
  w->initial_leaks = c.leaks;
  if (c.bitmaps != (spec->bitmaps ? MAKER_BITMAPS : 0))
    world_fail (w, "the image-maker's image has %u bitmaps", c.bitmaps);
  else
    w->bitmaps = copy_bitmaps (&c);
  checker_free (&c);

  w->files = (struct files) {
    .file = w->live, .log = &w->log, .no_discard = spec->no_discard,
    .device = spec->device, .write = spec->write
  };
  w->size_at_open = w->live[MEMORY_IMAGE].size;
  r = files_open (&w->files, true, l2_cache, &w->image);
  if (r < 0)
    world_fail (w, "the image cannot be opened: %s", strerror (-r));
  else if (!image_is_writable (w->image))
    world_fail (w, "the image cannot be written to");
}

void
world_abandon (struct world *w)
{
  if (w->image)
    image_close (w->image);
  w->image = NULL;
}

/* Has a cluster that was nothing but unmapped become data in part? */
static bool
was_begun (const struct world *w, const struct checker *c, uint64_t cluster)
{
  const uint64_t n = c->cluster / MEMORY_SECTOR;

  for (uint64_t i = cluster * n; i < (cluster + 1) * n && i < w->sectors; i++)
    if (c->is_data[i])
      return !is_mixed (w->spec, cluster);
  return false;
}

bool
world_raw_counts (const struct world *w, const struct checker *c,
                  uint64_t sector)
{
  const uint64_t cluster = sector * MEMORY_SECTOR / c->cluster;

  return w->spec->raw && !w->spec->encrypted
    && (c->is_data[sector]
        || (!(w->failed_requests && w->fault_lasts)
            && (!is_stale (w->spec, cluster) || was_begun (w, c, cluster))));
}

/* The oldest version of a sector that may be there at the end. */
static size_t
oldest (struct world *w, uint64_t sector, bool perfect)
{
  size_t event = 0;

  for (size_t i = 0; i < w->flushes; i++)
    if (w->flushed[i].begin > event)
      event = w->flushed[i].begin;
  return history_at (&w->sector[sector], perfect ? SIZE_MAX - 1 : event);
}

static bool
flush_failed (struct world *w)
{
  for (size_t i = 0; i < w->log.count; i++)
    if (w->log.op[i].failed)
      return true;
  return false;
}

/* Nobody knows what a failed flush left behind, so there is no way on. */
static void
check_refusal (struct world *w)
{
  const struct request refused[] = {
    { .kind = WRITE, .length = MEMORY_SECTOR },
    { .kind = ZERO, .length = MEMORY_SECTOR },
    { .kind = TRIM, .length = MEMORY_SECTOR },
    { .kind = FLUSH },
  };
  const struct request read = { .kind = READ, .length = w->spec->size };

  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
    if (world_request (w, &refused[i]) == 0)
      world_fail (w, "request %d is not refused after a failed flush",
                  refused[i].kind);
  if (world_request (w, &read) < 0)
    world_fail (w, "nothing can be read after a failed flush");
}

/* Was anything changed? */
static bool
changed (const struct world *w)
{
  for (uint64_t i = 0; i < w->sectors; i++)
    if (history_was_changed (&w->sector[i], w->sector[i].count - 1))
      return true;
  return false;
}

/* What is left must be perfect, unless something was made to fail. */

void
world_close (struct world *w)
{
  static const struct step none;
  /* If the file could not be made shorter, it is too long. */
  const bool too_long =
    w->log.faults_met && w->log.fault.kind == MEMORY_RESIZE;
  struct checker c = { 0 };
  bool perfect = true;

  memset (&w->log.fault, 0, sizeof w->log.fault);
  memory_alloc_log = NULL;
  if (w->failure[0] == '\0') {
    const struct request settle = { .kind = SETTLE };

    w->step = &none;
    perfect = world_request (w, &settle) == 0 && !flush_failed (w);
    if (flush_failed (w))
      check_refusal (w);
  }
  world_abandon (w);
  if (w->failure[0])
    return;

  checker_run (&c, &w->live[MEMORY_IMAGE], &w->live[MEMORY_DATA],
               &w->live[MEMORY_BACKING]);
  if (c.errors)
    world_fail (w, "after closing: %s", c.message);
  else if (perfect && c.leaks > w->initial_leaks)
    world_fail (w, "after closing, %u clusters have leaked",
                c.leaks - w->initial_leaks);
  else if (perfect
           && w->live[MEMORY_IMAGE].size < w->size_at_open)
    world_fail (w, "after closing, the image is shorter than it was");
  else if (perfect && !too_long
           && w->live[MEMORY_IMAGE].size > w->size_at_open
           && w->live[MEMORY_IMAGE].size > c.end * c.cluster)
    world_fail (w, "after closing, the image has an unused tail");
  for (uint64_t i = 0; i < w->sectors && w->failure[0] == '\0'; i++) {
    const uint8_t *p = c.guest + i * MEMORY_SECTOR;
    const uint8_t *d = file_sector (&w->live[MEMORY_DATA], i);
    char buf[128];

    if (!history_allows (&w->sector[i], oldest (w, i, perfect), SIZE_MAX, p))
      world_fail (w, "after closing, sector %" PRIu64 " is %s", i,
                  history_describe (&w->sector[i], p, buf));
    if (world_raw_counts (w, &c, i)
        && !history_allows (&w->sector[i], oldest (w, i, perfect), SIZE_MAX,
                            d))
      world_fail (w, "after closing, sector %" PRIu64 " of the raw file is "
                  "%s", i, history_describe (&w->sector[i], d, buf));
  }
  if (w->spec->raw && !w->spec->encrypted && perfect
      && w->failure[0] == '\0' && changed (w)
      && w->live[MEMORY_DATA].size < w->spec->size)
    world_fail (w, "after closing, the raw file is shorter than the disk");
  if (perfect && w->failure[0] == '\0' && c.dirty && changed (w))
    world_fail (w, "after closing, the image is marked dirty");
  if (w->failure[0] == '\0' && w->bitmaps) {
    uint8_t *fate = need (malloc (w->sectors));
    char why[128];

    for (uint64_t i = 0; i < w->sectors; i++)
      fate[i] = history_fate (&w->sector[i], c.guest + i * MEMORY_SECTOR,
                              oldest (w, i, perfect), SIZE_MAX);
    /* Short of memory, they may have missed something. */
    if (!bitmaps_hold (&c, w->bitmaps, fate,
                       perfect && w->fault_kind != MEMORY_ALLOC, why))
      world_fail (w, "after closing, %s", why);
    free (fate);
  }
  checker_free (&c);
}

void
world_free (struct world *w)
{
  for (uint64_t i = 0; i < w->sectors; i++)
    history_free (&w->sector[i]);
  free (w->sector);
  free (w->initial);
  free (w->flushed);
  free_bitmaps (w->bitmaps, MAKER_BITMAPS);
  memory_files_free (w->start);
  memory_files_free (w->live);
  memory_log_clear (&w->log);
  pthread_mutex_destroy (&w->lock);
  memset (w, 0, sizeof *w);
}
