/* qcow2ext: what a disk may show after a crash.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "crash.h"
#include "toy-cipher.h"
#include "base/report.h"
#include "data/decoded-cache.h"

/* How long somebody who perhaps waits for us is waited for. */
#define IMPATIENCE_NS 10000000

uint64_t crash_hang_ns = UINT64_C (120) * 1000000000;

static void *
need (void *p)
{
  if (p == NULL) {
    fputs ("out of memory\n", stderr);
    abort ();
  }
  return p;
}

uint64_t
rng_next (struct rng *rng)
{
  uint64_t x = rng->state += UINT64_C (0x9e3779b97f4a7c15);

  x = (x ^ x >> 30) * UINT64_C (0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C (0x94d049bb133111eb);
  return x ^ x >> 31;
}

uint64_t
rng_below (struct rng *rng, uint64_t n)
{
  return rng_next (rng) % n;
}

static void
loud_sink (enum report_level level, const char *message)
{
  static const char *const names[] = { "debug", "warning", "error" };

  fprintf (stderr, "%s: %s\n", names[level], message);
}

static void
quiet_sink (enum report_level level, const char *message)
{
  (void) level, (void) message;
}

unsigned
crash_share (unsigned n)
{
  return getenv ("QCOW2EXT_TEST_SHORT") && n > 0 ? (n + 3) / 4 : n;
}

void
crash_quiet (void)
{
  report_set_sink (getenv ("QCOW2EXT_TEST_VERBOSE") ? loud_sink : quiet_sink);
}

/* ---------------------------------------------------------------------
 * The engine's surroundings.
 */

static int
open_data (void *opaque, unsigned depth, const struct store *of,
           const char *name, struct store **store)
{
  struct files *f = opaque;

  (void) depth, (void) of, (void) name;
  memory_in_engine = false;
  *store = store_memory_new (&f->file[MEMORY_DATA], f->log, MEMORY_DATA,
                             f->no_discard);
  memory_in_engine = true;
  return 0;
}

static int
open_backing (void *opaque, unsigned depth, const struct store *of,
              const char *name, const char *format, struct store **store,
              enum image_format *as)
{
  struct files *f = opaque;

  (void) depth, (void) of, (void) format;
  memory_in_engine = false;
  *store = name ? store_memory_new (&f->file[MEMORY_BACKING], f->log,
                                    MEMORY_BACKING, false) : NULL;
  memory_in_engine = true;
  *as = IMAGE_RAW;
  return 0;
}

static const char *
refuse (void *opaque, bool has_data_file)
{
  (void) opaque, (void) has_data_file;
  return NULL;
}

/* What the filter does: it leaves nothing behind, but nothing says when that
 * is durable.
 */
static int
prove (void *opaque, uint64_t offset, uint64_t length, bool grow,
       bool *can_grow)
{
  struct files *f = opaque;
  uint8_t pattern[MEMORY_SECTOR], before[MEMORY_SECTOR];
  uint64_t size;
  int r;

  make_pattern (pattern, PATTERN_OLD, offset / MEMORY_SECTOR);
  *can_grow = false;
  if (!grow && length == 0)
    return 0;
  if (!grow) {
    if ((r = store_pread (f->store, before, sizeof before, offset)) < 0
        || (r = store_pwrite (f->store, pattern, sizeof pattern, offset)) < 0)
      return r;
    return store_pwrite (f->store, before, sizeof before, offset);
  }
  if ((r = store_get_size (f->store, &size)) < 0
      || (r = store_resize (f->store, offset + length)) < 0)
    return r;
  r = store_pwrite (f->store, pattern, sizeof pattern, offset);
  if (store_resize (f->store, size) < 0)
    r = -EIO;
  *can_grow = r == 0;
  return r;
}

/* The environment lives as long as the image, so it is static; what differs
 * is in the opaque pointer.
 */
struct opened {
  struct image_env env;
  struct image_write_env write_env;
};

int
files_open (struct files *files, bool writable, size_t l2_cache,
            struct image **image)
{
  /* One image is open at a time in a thread, so these can be reused. */
  static _Thread_local struct opened o;
  struct image_options options;
  int r;

  o.env = (struct image_env) {
    .open_data = open_data, .open_backing = open_backing,
    .open_encrypted = toy_open_encrypted, .opaque = files
  };
  o.write_env = (struct image_write_env) {
    .refuse = refuse, .prove = prove, .opaque = files
  };
  options = (struct image_options) {
    .env = &o.env,
    .write_env = writable ? &o.write_env : NULL,
    .l2_cache_size = l2_cache ? l2_cache : 1 << 20,
    .decoded = decoded_cache_new (1 << 20),
    .write = files->write,
  };
  files->store = store_memory_new (&files->file[MEMORY_IMAGE], files->log,
                                   MEMORY_IMAGE, files->no_discard);
  files->store->fixed_size = files->device;
  memory_in_engine = true;
  r = image_open (files->store, &options, image);
  memory_in_engine = false;
  decoded_cache_unref (options.decoded);
  return r;
}

/* ---------------------------------------------------------------------
 * The model.
 */

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

static bool
is_zero (const uint8_t *p)
{
  return p[0] == 0 && memcmp (p, p + 1, MEMORY_SECTOR - 1) == 0;
}

static struct version *
latest (struct history *h)
{
  return &h->version[h->count - 1];
}

static void
push_version (struct history *h, size_t issued, size_t done,
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

static bool
version_is (const struct version *v, const uint8_t *bytes)
{
  return v->bytes ? memcmp (v->bytes, bytes, MEMORY_SECTOR) == 0
                  : is_zero (bytes);
}

/* Is this one of the versions from first on that were issued before the cut?
 * A sector that is written to in part may have parts of several.
 */
static bool
is_allowed (const struct history *h, size_t first, size_t cut,
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

static const uint8_t *
sector_of (const struct memory_file *f, uint64_t i)
{
  static const uint8_t nothing[MEMORY_SECTOR];

  return (i + 1) * MEMORY_SECTOR <= f->size ? f->bytes + i * MEMORY_SECTOR
                                            : nothing;
}

/* The last version that was done at an event. */
static size_t
version_at (const struct history *h, size_t event)
{
  size_t i = h->count - 1;

  while (i > 0 && (h->version[i].done == SIZE_MAX
                   || h->version[i].done > event))
    i--;
  return i;
}

/* --- bitmaps --- */

struct bitmap_copy {
  unsigned flags;
  uint8_t *bits;                /* a byte for each granule */
};

static uint64_t
granules (const struct checker *c, unsigned i)
{
  return (c->size + c->bitmap[i].granule - 1) / c->bitmap[i].granule;
}

static struct bitmap_copy *
copy_bitmaps (const struct checker *c)
{
  struct bitmap_copy *copy;

  if (c->bitmaps == 0)
    return NULL;
  copy = need (calloc (c->bitmaps, sizeof *copy));
  for (unsigned i = 0; i < c->bitmaps; i++) {
    copy[i].flags = c->bitmap[i].flags;
    copy[i].bits = need (malloc (granules (c, i)));
    memcpy (copy[i].bits, c->bitmap[i].bits, granules (c, i));
  }
  return copy;
}

static void
free_bitmaps (struct bitmap_copy *copy, unsigned n)
{
  for (unsigned i = 0; copy && i < n; i++)
    free (copy[i].bits);
  free (copy);
}

/* What has happened to the sector since the bitmaps were copied. */
enum fate { UNTOUCHED, PERHAPS, CHANGED };

/* Do the bitmaps tell the truth, if they are not marked as in use?  Those that
 * do not record, and those that were in use before us, stay as they are.
 * "closed": none may be in use now.
 */
static bool
bitmaps_hold (const struct checker *c, const struct bitmap_copy *before,
              const uint8_t *fate, bool closed, char why[128])
{
  for (unsigned i = 0; before && i < MAKER_BITMAPS; i++) {
    const unsigned flags = c->bitmap[i].flags;
    const uint64_t sectors = c->bitmap[i].granule / MEMORY_SECTOR;

    if (c->bitmaps != MAKER_BITMAPS) {
      snprintf (why, 128, "there are %u bitmaps", c->bitmaps);
      return false;
    }
    if (before[i].flags != 2) {
      if (flags != before[i].flags
          || memcmp (c->bitmap[i].bits, before[i].bits, granules (c, i))) {
        snprintf (why, 128, "bitmap %u has changed", i);
        return false;
      }
      continue;
    }
    if (flags != 2 && (flags != 3 || closed)) {
      snprintf (why, 128, "bitmap %u has the flags %u", i, flags);
      return false;
    }
    for (uint64_t g = 0; flags == 2 && g < granules (c, i); g++) {
      uint8_t all = UNTOUCHED;

      for (uint64_t s = g * sectors; s < (g + 1) * sectors; s++)
        if (s < c->size / MEMORY_SECTOR && fate[s] > all)
          all = fate[s];
      if (c->bitmap[i].bits[g]
          ? all == UNTOUCHED && !before[i].bits[g]
          : all == CHANGED || before[i].bits[g]) {
        snprintf (why, 128, "bitmap %u says that granule %" PRIu64 " is %s",
                  i, g, c->bitmap[i].bits[g] ? "dirty" : "clean");
        return false;
      }
    }
  }
  return true;
}

/* What a sector holds, in words. */
static const char *
describe (const struct history *h, const uint8_t *bytes, char buf[128])
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

/* The files of the world that a thread has open. */
static _Thread_local struct files world_files;

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
    push_version (&w->sector[i], 0, 0, w->initial + i * MEMORY_SECTOR);

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

  world_files = (struct files) {
    .file = w->live, .log = &w->log, .no_discard = spec->no_discard,
    .device = spec->device, .write = spec->write
  };
  w->size_at_open = w->live[MEMORY_IMAGE].size;
  r = files_open (&world_files, true, l2_cache, &w->image);
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

/* Has the raw data file by itself to show what the guest sees?  Not where it
 * held something else from the beginning and was not mapped; nor where a write
 * failed halfway and nothing could be done about it.
 */
static bool
raw_counts (const struct world *w, const struct checker *c, uint64_t sector)
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
  return version_at (&w->sector[sector], perfect ? SIZE_MAX - 1 : event);
}

static bool
flush_failed (struct world *w)
{
  for (size_t i = 0; i < w->log.count; i++)
    if (w->log.op[i].failed)
      return true;
  return false;
}

static bool
same_version (const struct version *a, const struct version *b)
{
  return a->bytes && b->bytes
    ? memcmp (a->bytes, b->bytes, MEMORY_SECTOR) == 0 : a->bytes == b->bytes;
}

/* Was a sector ever something else than at the start, up to a version?  What
 * has failed without a trace counts as a version, too.
 */
static bool
was_changed (const struct history *h, size_t last)
{
  for (size_t i = 1; i <= last; i++)
    if (h->version[i].done != SIZE_MAX
        && !same_version (&h->version[i], &h->version[0]))
      return true;
  return false;
}

/* What has become of a sector, if "first" of it is the oldest version that
 * may be there and those issued before the cut may be there as well.
 */
static enum fate
fate_of (const struct world *w, const uint8_t *guest, uint64_t sector,
         size_t first, size_t cut)
{
  const struct history *h = &w->sector[sector];

  if (was_changed (h, first)
      || !version_is (&h->version[0], guest + sector * MEMORY_SECTOR))
    return CHANGED;
  for (size_t i = 1; i < h->count; i++)
    if (h->version[i].issued < cut)
      return PERHAPS;
  return UNTOUCHED;
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
    if (was_changed (&w->sector[i], w->sector[i].count - 1))
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
    const uint8_t *d = sector_of (&w->live[MEMORY_DATA], i);
    char buf[128];

    if (!is_allowed (&w->sector[i], oldest (w, i, perfect), SIZE_MAX, p))
      world_fail (w, "after closing, sector %" PRIu64 " is %s", i,
                  describe (&w->sector[i], p, buf));
    if (raw_counts (w, &c, i)
        && !is_allowed (&w->sector[i], oldest (w, i, perfect), SIZE_MAX, d))
      world_fail (w, "after closing, sector %" PRIu64 " of the raw file is "
                  "%s", i, describe (&w->sector[i], d, buf));
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
      fate[i] = fate_of (w, c.guest, i, oldest (w, i, perfect), SIZE_MAX);
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
  for (uint64_t i = 0; i < w->sectors; i++) {
    for (size_t j = 0; j < w->sector[i].count; j++)
      free (w->sector[i].version[j].bytes);
    free (w->sector[i].version);
  }
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

/* ---------------------------------------------------------------------
 * Requests.
 */

static bool
join_other (struct world *w, uint64_t ns)
{
  struct timespec until;

  clock_gettime (CLOCK_REALTIME, &until);
  ns += until.tv_nsec;
  until.tv_sec += ns / 1000000000;
  until.tv_nsec = ns % 1000000000;
  if (pthread_timedjoin_np (w->other_thread, NULL, &until) != 0)
    return false;
  w->other_runs = false;
  return true;
}

/* What a request makes of its sectors: the bytes of a write, or zeros. */
static uint8_t *
new_content (struct world *w, const struct request *q)
{
  uint8_t *content, *whole;
  uint64_t first = q->offset / MEMORY_SECTOR;
  uint64_t end = (q->offset + q->length + MEMORY_SECTOR - 1) / MEMORY_SECTOR;
  uint32_t number;

  content = need (calloc (1, q->length + 1));
  if (q->kind != WRITE)
    return content;
  pthread_mutex_lock (&w->lock);
  number = w->next_number++;
  pthread_mutex_unlock (&w->lock);
  if ((w->spec->write.compress || w->spec->write.detect_zeroes)
      && number % 5 == 0)
    return content;             /* zeros, for them to be detected */
  whole = need (malloc ((end - first) * MEMORY_SECTOR));
  for (uint64_t i = first; i < end; i++)
    make_pattern (whole + (i - first) * MEMORY_SECTOR, number, i);
  memcpy (content, whole + q->offset % MEMORY_SECTOR, q->length);
  free (whole);
  return content;
}

/* Tells the model that this is about to happen, or that (done) it is what is
 * there now.
 */
static void
tell_model (struct world *w, const struct request *q, const uint8_t *content,
            bool done, size_t issued)
{
  const uint64_t end = q->offset + q->length;
  size_t event;

  pthread_mutex_lock (&w->lock);
  event = ++w->events;
  for (uint64_t pos = q->offset, next; pos < end; pos = next) {
    const uint64_t s = pos / MEMORY_SECTOR;
    struct history *h = &w->sector[s];
    uint8_t bytes[MEMORY_SECTOR] = { 0 };

    next = (s + 1) * MEMORY_SECTOR;
    if (next > end)
      next = end;
    if (latest (h)->bytes)
      memcpy (bytes, latest (h)->bytes, MEMORY_SECTOR);
    memcpy (bytes + pos % MEMORY_SECTOR, content + (pos - q->offset),
            next - pos);
    if (next - pos < MEMORY_SECTOR)
      h->partial = true;
    if (done && version_is (latest (h), bytes))
      latest (h)->done = event;
    else
      push_version (h, issued, done ? event : SIZE_MAX, bytes);
  }
  pthread_mutex_unlock (&w->lock);
}

/* What came of it, if that is not certain: the model learns it by looking.
 * Returns false if it is impossible.
 */
static bool
look (struct world *w, const struct request *q, const uint8_t *old,
      const uint8_t *content, size_t issued)
{
  uint8_t *now = need (malloc (q->length + 1));
  bool ok = true;
  int r;

  r = image_read (w->image, now, q->length, q->offset);
  if (r < 0) {
    world_fail (w, "what request %d left behind cannot be read: %s", q->kind,
                strerror (-r));
    free (now);
    return false;
  }
  for (uint64_t i = 0; i < q->length && ok; i++)
    ok = now[i] == old[i] || now[i] == content[i];
  if (ok)
    tell_model (w, q, now, true, issued);
  else
    world_fail (w, "request %d at %" PRIu64 "+%" PRIu64 " left something "
                "else behind", q->kind, q->offset, q->length);
  free (now);
  return ok;
}

/* Likewise, if others wrote to the same sectors at the same time. */
static void
look_after_race (struct world *w, const struct request *q, size_t event,
                 size_t issued)
{
  uint8_t *now = need (malloc (q->length + 1));

  if (image_read (w->image, now, q->length, q->offset) < 0)
    world_fail (w, "what others wrote to as well cannot be read");
  else {
    for (uint64_t i = 0; i < q->length; i += MEMORY_SECTOR) {
      const uint64_t s = (q->offset + i) / MEMORY_SECTOR;
      char buf[128];

      if (!is_allowed (&w->sector[s], version_at (&w->sector[s], event),
                       SIZE_MAX, now + i))
        world_fail (w, "after a race sector %" PRIu64 " is %s", s,
                    describe (&w->sector[s], now + i, buf));
    }
    tell_model (w, q, now, true, issued);
  }
  free (now);
}

/* Reading must show what was there before or what came in the meantime. */
static int
do_read (struct world *w, const struct request *q)
{
  const uint64_t first = q->offset / MEMORY_SECTOR;
  const uint64_t count = q->length / MEMORY_SECTOR;
  size_t *oldest = need (calloc (count + 1, sizeof *oldest));
  uint8_t *buf = need (malloc (q->length + 1));
  int r;

  pthread_mutex_lock (&w->lock);
  for (uint64_t i = 0; i < count; i++)
    oldest[i] = version_at (&w->sector[first + i], SIZE_MAX - 1);
  pthread_mutex_unlock (&w->lock);
  memory_in_engine = true;
  r = image_read (w->image, buf, q->length, q->offset);
  memory_in_engine = false;
  pthread_mutex_lock (&w->lock);
  for (uint64_t i = 0; i < count && r == 0; i++) {
    char text[128];

    if (!is_allowed (&w->sector[first + i], oldest[i], SIZE_MAX,
                     buf + i * MEMORY_SECTOR))
      world_fail (w, "sector %" PRIu64 " reads as %s", first + i,
                  describe (&w->sector[first + i], buf + i * MEMORY_SECTOR,
                            text));
  }
  pthread_mutex_unlock (&w->lock);
  free (oldest);
  free (buf);
  return r;
}

static int
do_flush (struct world *w, const struct request *q)
{
  size_t begin;
  int r;

  pthread_mutex_lock (&w->lock);
  begin = ++w->events;
  pthread_mutex_unlock (&w->lock);
  memory_in_engine = true;
  r = q->kind == FLUSH ? image_flush (w->image)
                       : image_settle (w->image, q->flags & SETTLE_IDLE);
  memory_in_engine = false;
  if (r == 0 && !(q->kind == SETTLE && q->flags & SETTLE_IDLE)) {
    pthread_mutex_lock (&w->lock);
    w->flushed = need (realloc (w->flushed,
                                (w->flushes + 1) * sizeof *w->flushed));
    w->flushed[w->flushes++] = (struct flushed) {
      .begin = begin, .end = memory_log_count (&w->log)
    };
    pthread_mutex_unlock (&w->lock);
  }
  if (r == 0 && q->kind == SETTLE && q->flags & SETTLE_REOPEN) {
    image_close (w->image);
    w->image = NULL;
    w->size_at_open = w->live[MEMORY_IMAGE].size;
    r = files_open (&world_files, true, 0, &w->image);
  }
  return r;
}

static int
do_change (struct world *w, const struct request *q)
{
  uint8_t *content = new_content (w, q);
  uint8_t *old = need (malloc (q->length + 1));
  const size_t issued = memory_log_count (&w->log);
  size_t event;
  int r;

  pthread_mutex_lock (&w->lock);
  event = w->events;
  for (uint64_t i = 0; i < q->length; i++) {
    const uint64_t pos = q->offset + i;
    const uint8_t *bytes = latest (&w->sector[pos / MEMORY_SECTOR])->bytes;

    old[i] = bytes ? bytes[pos % MEMORY_SECTOR] : 0;
  }
  pthread_mutex_unlock (&w->lock);

  tell_model (w, q, content, false, issued);
  memory_in_engine = true;
  switch (q->kind) {
  case WRITE:
    r = image_write (w->image, content, q->length, q->offset);
    break;
  case ZERO:
    r = image_zero (w->image, q->length, q->offset, q->flags);
    break;
  default:
    r = image_trim (w->image, q->length, q->offset);
    break;
  }
  memory_in_engine = false;
  if (pthread_equal (pthread_self (), w->paused_thread))
    w->pausing = NULL;
  if (r == 0 && q == &w->step->request && w->step->races) {
    if (w->other_runs && !join_other (w, crash_hang_ns))
      world_fail (w, "a request hangs");
    look_after_race (w, q, event, issued);
  }
  else if (r == -ENOTSUP && q->kind == ZERO && (q->flags & IMAGE_ZERO_FAST)) {
    /* With nothing changed, unless others changed what was found. */
    if (look (w, q, old, w->step->pause.nth ? content : old, issued))
      r = 0;
  }
  else if (r == 0 && q->kind != TRIM)
    tell_model (w, q, content, true, issued);
  else if (w->step->races)
    look_after_race (w, q, event, issued);
  else
    look (w, q, old, content, issued);
  free (content);
  free (old);
  return r;
}

int
world_request (struct world *w, const struct request *q)
{
  int r;

  switch (q->kind) {
  case READ:
    r = do_read (w, q);
    break;
  case FLUSH:
  case SETTLE:
    r = do_flush (w, q);
    break;
  default:
    r = do_change (w, q);
    break;
  }
  if (r < 0) {
    pthread_mutex_lock (&w->lock);
    if (w->first_error == 0)
      w->first_error = r;
    w->failed_requests++;
    pthread_mutex_unlock (&w->lock);
    if (!w->expect_errors)
      world_fail (w, "request %d at %" PRIu64 "+%" PRIu64 " failed: %s",
                  q->kind, q->offset, q->length, strerror (-r));
  }
  return r;
}

/* --- pauses --- */

struct other {
  struct world *w;
  const struct request *request;
  pthread_t thread;
};

static void *
do_other (void *opaque)
{
  struct other *other = opaque;

  world_request (other->w, other->request);
  return NULL;
}

static void *
do_others (void *opaque)
{
  struct world *w = opaque;
  const struct step *step = w->others;
  struct other other[MAX_DURING];

  for (unsigned i = 0; i < step->n_during; i++) {
    other[i] = (struct other) { .w = w, .request = &step->during[i] };
    if (!step->pause.together)
      do_other (&other[i]);
    else if (pthread_create (&other[i].thread, NULL, do_other, &other[i]) != 0)
      abort ();
  }
  for (unsigned i = 0; step->pause.together && i < step->n_during; i++)
    pthread_join (other[i].thread, NULL);
  return NULL;
}

static void
hook (void *opaque, const struct memory_op *op, bool before)
{
  struct world *w = opaque;
  const struct step *step;

  if (!pthread_equal (pthread_self (), w->paused_thread))
    return;
  step = w->pausing;
  if (step == NULL || w->pause_left == 0
      || before == step->pause.after
      || (step->pause.kind < 0 ? op->kind == MEMORY_READ
                               : op->kind != (unsigned) step->pause.kind)
      || (step->pause.file >= 0 && op->file != (unsigned) step->pause.file)
      || --w->pause_left > 0)
    return;
  w->others = step;
  w->pauses_met++;
  if (pthread_create (&w->other_thread, NULL, do_others, w) != 0)
    abort ();
  w->other_runs = true;
  if (!join_other (w, step->pause.patient
                      ? crash_hang_ns : IMPATIENCE_NS)
      && step->pause.patient)
    world_fail (w, "a request waits for one that it has nothing to do with");
}

void
world_step (struct world *w, const struct step *step)
{
  static const struct step none;

  w->log.hook = NULL;
  w->step = step;
  w->pausing = &none;
  if (step->pause.nth) {
    w->pausing = step;
    w->pause_begin = memory_log_count (&w->log);
    w->pause_left = step->pause.nth;
    w->paused_thread = pthread_self ();
    w->log.opaque = w;
    w->log.hook = hook;
  }
  world_request (w, &step->request);
  if (w->other_runs && !join_other (w, crash_hang_ns)) {
    fprintf (stderr, "%s: a request hangs\n", w->spec->name);
    abort ();
  }
  w->log.hook = NULL;
}

/* ---------------------------------------------------------------------
 * Random workloads.
 */

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

/* ---------------------------------------------------------------------
 * States.
 */

/* A set of hashes. */
struct hash_set {
  uint64_t *slot;
  size_t room, count;
};

static bool
hash_set_add (struct hash_set *set, uint64_t hash)
{
  hash += hash == 0;
  if (2 * set->count >= set->room) {
    struct hash_set bigger = { .room = set->room ? 2 * set->room : 4096 };

    bigger.slot = need (calloc (bigger.room, sizeof *bigger.slot));
    for (size_t i = 0; i < set->room; i++)
      if (set->slot[i])
        hash_set_add (&bigger, set->slot[i]);
    free (set->slot);
    *set = bigger;
  }
  for (size_t i = hash & (set->room - 1);; i = (i + 1) & (set->room - 1)) {
    if (set->slot[i] == hash)
      return false;
    if (set->slot[i] == 0) {
      set->slot[i] = hash;
      set->count++;
      return true;
    }
  }
}

static uint64_t
hash_file (const struct memory_file *f, uint64_t seed)
{
  uint64_t a = seed + f->size, b = ~seed;
  uint64_t word[2];

  for (uint64_t i = 0; i + 16 <= ((f->size + 15) & -UINT64_C (16)); i += 16) {
    memcpy (word, f->bytes + i, 16); /* room is a multiple of 64 KiB */
    a = (a ^ word[0]) * UINT64_C (0x9fb21c651e98df25);
    b = (b ^ word[1]) * UINT64_C (0xa0761d6478bd642f);
    a ^= a >> 32;
    b ^= b >> 29;
  }
  return a ^ (b << 31 | b >> 33);
}

/* How an operation that is not durable appears in a state. */
enum { NONE, ALL, PREFIX, SUFFIX, PIECES };
struct choice {
  uint8_t how;
  uint32_t seed;
};

struct open_op {
  const struct memory_op *op;
  bool certain;                 /* it is durable, but others before it not */
  bool lost;                    /* a flush failed: it may never be durable */
};

struct enumeration {
  struct world *w;
  const struct workload *workload;
  const struct crash_options *options;
  struct crash_stats *stats;
  struct rng rng, lot;

  struct memory_file base[2], state[MEMORY_FILES];
  struct open_op *open;
  size_t opens, room;
  struct choice *choice;        /* of each open one */

  size_t cut;                   /* operations that were begun */
  size_t flushed;               /* event that was flushed by then */
  struct hash_set tried;
  bool counting;                /* only count the states */
  uint64_t states;              /* that many there are to try */
  struct checker checker;
  uint8_t *guest, *fate;
  char *failure;
};

/* All states of all workloads. */
static struct hash_set all_states;

bool
crash_states_write (FILE *f)
{
  for (size_t i = 0; i < all_states.room; i++)
    if (all_states.slot[i]
        && fwrite (&all_states.slot[i], sizeof (uint64_t), 1, f) != 1)
      return false;
  return true;
}

uint64_t
crash_states_add (FILE *f)
{
  const size_t before = all_states.count;
  uint64_t hash;

  while (fread (&hash, sizeof hash, 1, f) == 1)
    hash_set_add (&all_states, hash);
  return all_states.count - before;
}

static bool
is_change (const struct memory_op *op)
{
  return op->kind != MEMORY_FLUSH && op->kind != MEMORY_READ;
}

static unsigned
op_sectors (const struct memory_op *op)
{
  if (op->kind == MEMORY_RESIZE)
    return 1;
  return (op->offset + op->length - 1) / MEMORY_SECTOR
    - op->offset / MEMORY_SECTOR + 1;
}

static void
apply_torn (struct memory_file *f, const struct memory_op *op,
            struct choice choice)
{
  const unsigned n = op_sectors (op);
  const unsigned where = n > 1 ? 1 + choice.seed % (n - 1) : 0;
  struct rng rng = { choice.seed };

  for (unsigned i = 0; i < n; i++) {
    struct memory_op part = *op;
    const uint64_t start = i == 0 ? op->offset
      : (op->offset / MEMORY_SECTOR + i) * MEMORY_SECTOR;
    uint64_t end = (op->offset / MEMORY_SECTOR + i + 1) * MEMORY_SECTOR;

    if (end > op->offset + op->length)
      end = op->offset + op->length;
    if ((choice.how == PREFIX && i >= where)
        || (choice.how == SUFFIX && i < where)
        || (choice.how == PIECES && rng_below (&rng, 2)))
      continue;
    part.offset = start;
    part.length = end - start;
    if (part.data)
      part.data += start - op->offset;
    memory_file_apply (f, &part);
  }
}

static void
build (struct enumeration *e)
{
  memory_file_copy (&e->state[0], &e->base[0]);
  memory_file_copy (&e->state[1], &e->base[1]);
  for (size_t i = 0; i < e->opens; i++) {
    const struct memory_op *op = e->open[i].op;
    struct memory_file *f = &e->state[op->file];

    if (e->open[i].certain || e->choice[i].how == ALL)
      memory_file_apply (f, op);
    else if (e->choice[i].how != NONE)
      apply_torn (f, op, e->choice[i]);
  }
}

static bool
fail (struct enumeration *e, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

static bool
fail (struct enumeration *e, const char *fmt, ...)
{
  char text[512];
  va_list ap;
  int n;

  va_start (ap, fmt);
  vsnprintf (text, sizeof text, fmt, ap);
  va_end (ap);
  n = snprintf (e->failure, 1024, "%s\n  after %zu operations, of which not "
                "durable (+ is there, - is not, ~ is torn):", text, e->cut);
  for (size_t i = 0; i < e->opens && n < 960; i++) {
    const struct memory_op *op = e->open[i].op;

    n += snprintf (e->failure + n, 1024 - n, "\n  %c%s %s 0x%" PRIx64
                   "+0x%" PRIx64,
                   e->open[i].certain || e->choice[i].how == ALL ? '+'
                   : e->choice[i].how == NONE ? '-' : '~',
                   memory_kind_name (op->kind), op->file ? "data" : "image",
                   op->offset, op->length);
  }
  return false;
}

/* --- looking at a state --- */

static bool
write_file (const char *dir, const char *name, const struct memory_file *f)
{
  char path[256];
  uint64_t done = 0;
  int fd;

  snprintf (path, sizeof path, "%s/%s", dir, name);
  fd = open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  while (fd != -1 && done < f->size) {
    const ssize_t n = write (fd, f->bytes + done, f->size - done);

    if (n <= 0)
      break;
    done += n;
  }
  return fd != -1 && close (fd) == 0 && done == f->size;
}

#define NO_QEMU 127

/* Returns what qemu-img check exits with; NO_QEMU if it is not there. */
static int
qemu_check (const struct memory_file *file)
{
  static const char *const names[] = { "image", "data", "backing" };
  const char *tmp = getenv ("TMPDIR");
  char dir[200], path[256];
  int status = -1;
  pid_t pid;

  snprintf (dir, sizeof dir, "%s/qcow2ext-crash-XXXXXX", tmp ? tmp : "/tmp");
  if (mkdtemp (dir) == NULL)
    return NO_QEMU;
  for (unsigned i = 0; i < MEMORY_FILES; i++)
    if (!write_file (dir, names[i], &file[i]))
      goto out;

  pid = fork ();
  if (pid == 0) {
    const int null = open ("/dev/null", O_WRONLY);

    if (!getenv ("QCOW2EXT_TEST_VERBOSE"))
      dup2 (null, 2);
    dup2 (null, 1);
    if (chdir (dir) == 0)
      execlp ("qemu-img", "qemu-img", "check", "-f", "qcow2", "image", NULL);
    _exit (NO_QEMU);
  }
  if (pid > 0)
    waitpid (pid, &status, 0);

 out:
  for (unsigned i = 0; i < MEMORY_FILES; i++) {
    snprintf (path, sizeof path, "%s/%s", dir, names[i]);
    unlink (path);
  }
  rmdir (dir);
  return WIFEXITED (status) ? WEXITSTATUS (status) : 255;
}

static bool
check_sectors (struct enumeration *e)
{
  const struct world *w = e->w;
  const struct checker *c = &e->checker;
  char buf[128];

  for (uint64_t i = 0; i < w->sectors; i++) {
    const struct history *h = &w->sector[i];
    const size_t first = version_at (h, e->flushed);
    const uint8_t *p = c->guest + i * MEMORY_SECTOR;

    if (!is_allowed (h, first, e->cut, p))
      return fail (e, "guest sector %" PRIu64 " is %s, but version %zu was "
                   "flushed", i, describe (h, p, buf), first);
    if (w->bitmaps)
      e->fate[i] = fate_of (w, c->guest, i, first, e->cut);
    if (!raw_counts (w, c, i))
      continue;
    p = sector_of (&e->state[MEMORY_DATA], i);
    if (!is_allowed (h, first, e->cut, p))
      return fail (e, "sector %" PRIu64 " of the raw file is %s, but version "
                   "%zu was flushed", i, describe (h, p, buf), first);
  }
  return true;
}

/* The engine must be able to go on with it. */
static bool
write_on_with (struct enumeration *e, const struct bitmap_copy *bitmaps)
{
  const struct image_spec *spec = e->w->spec;
  const unsigned leaks = e->checker.leaks;
  struct files files = {
    .file = e->state, .no_discard = spec->no_discard, .device = spec->device,
    .write = spec->write
  };
  struct image *image;
  uint8_t sector[MEMORY_SECTOR];
  char why[128];
  int r;

  memset (e->fate, UNTOUCHED, e->w->sectors);
  r = files_open (&files, true, 0, &image);
  if (r < 0)
    return fail (e, "it cannot be opened for writing: %s", strerror (-r));
  if (!image_is_writable (image)) {
    image_close (image);
    return fail (e, "it cannot be written to");
  }
  for (unsigned i = 0; i < 4 && r == 0; i++) {
    const uint64_t s = rng_below (&e->rng, e->w->sectors);

    make_pattern (sector, UINT32_MAX - i, s);
    r = image_write (image, sector, MEMORY_SECTOR, s * MEMORY_SECTOR);
    memcpy (e->guest + s * MEMORY_SECTOR, sector, MEMORY_SECTOR);
    e->fate[s] = CHANGED;
    if (i == 1 && r == 0)
      r = image_flush (image);
    if (i == 2 && r == 0) {
      const uint64_t z = rng_below (&e->rng, e->w->sectors);

      r = image_zero (image, MEMORY_SECTOR, z * MEMORY_SECTOR,
                      IMAGE_ZERO_UNMAP);
      memset (e->guest + z * MEMORY_SECTOR, 0, MEMORY_SECTOR);
      e->fate[z] = CHANGED;
    }
  }
  if (r == 0)
    r = image_settle (image, false);
  image_close (image);
  if (r < 0)
    return fail (e, "writing on fails: %s", strerror (-r));

  checker_run (&e->checker, &e->state[MEMORY_IMAGE], &e->state[MEMORY_DATA],
               &e->state[MEMORY_BACKING]);
  if (e->checker.errors)
    return fail (e, "after writing on: %s", e->checker.message);
  if (e->checker.leaks > leaks)
    return fail (e, "after writing on there are %u leaks, %u before",
                 e->checker.leaks, leaks);
  if (memcmp (e->checker.guest, e->guest, spec->size) != 0)
    return fail (e, "after writing on, the disk is not what it should be");
  if (e->checker.dirty)
    return fail (e, "after writing on, the image is marked dirty");
  if (!bitmaps_hold (&e->checker, bitmaps, e->fate, true, why))
    return fail (e, "after writing on, %s", why);
  return true;
}

static bool
write_on (struct enumeration *e)
{
  struct bitmap_copy *bitmaps = copy_bitmaps (&e->checker);
  const bool ok = write_on_with (e, bitmaps);

  free_bitmaps (bitmaps, e->checker.bitmaps);
  return ok;
}

static bool
check_state (struct enumeration *e, bool is_new)
{
  struct world *w = e->w;
  struct checker *c = &e->checker;
  struct files files = { .file = e->state };
  struct image *image;
  char why[128];
  int r;

  checker_run (c, &e->state[MEMORY_IMAGE], &e->state[MEMORY_DATA],
               &e->state[MEMORY_BACKING]);
  if (c->errors)
    return fail (e, "%s", c->message);
  if (!check_sectors (e))
    return false;
  if (c->unknown_autoclear && memcmp (c->guest, w->initial, w->spec->size))
    return fail (e, "the disk has changed, but an unknown autoclear bit is "
                 "still there");
  if (!bitmaps_hold (c, w->bitmaps, e->fate, false, why))
    return fail (e, "%s", why);
  if (c->has_snapshot && memcmp (c->snapshot, w->initial, w->spec->size) != 0)
    return fail (e, "the snapshot has changed");

  if (is_new && e->options->qemu_every && !c->dirty
      && !w->spec->encrypted /* which wants a key */
      && e->stats->distinct % e->options->qemu_every == 0) {
    r = qemu_check (e->state);
    e->stats->by_qemu += r != NO_QEMU;
    if (r != 0 && r != 3 && r != NO_QEMU) /* 3: leaks */
      return fail (e, "qemu-img check finds errors (%d)", r);
  }

  r = files_open (&files, false, 0, &image);
  if (r < 0)
    return fail (e, "it cannot be opened: %s", strerror (-r));
  r = image_read (image, e->guest, w->spec->size, 0);
  image_close (image);
  if (r < 0)
    return fail (e, "it cannot be read: %s", strerror (-r));
  if (memcmp (c->guest, e->guest, w->spec->size) != 0)
    return fail (e, "the engine reads something else than the checker");
  return write_on (e);
}

/* Builds the state that the choices say and looks at it, if it is new. */
static bool
try_state (struct enumeration *e)
{
  uint64_t hash;
  bool is_new;

  /* What comes before is the same for all points to stop at. */
  if (e->options->from_pause && e->cut < e->w->pause_begin)
    return true;
  if (e->counting) {
    e->states++;
    return true;
  }
  /* If there are too many, leave some out all along the way. */
  if (e->options->max_states
      && rng_below (&e->lot, e->states) >= e->options->max_states)
    return true;
  build (e);
  e->stats->built++;
  hash = hash_file (&e->state[1], hash_file (&e->state[0], 1));
  /* What was flushed in the meantime forbids more. */
  if (!hash_set_add (&e->tried, hash + e->flushed))
    return true;
  is_new = hash_set_add (&all_states, hash);
  e->stats->distinct += is_new;
  return check_state (e, is_new);
}

/* --- choosing states --- */

static void
choose_all (struct enumeration *e, uint8_t how)
{
  for (size_t i = 0; i < e->opens; i++)
    e->choice[i] = (struct choice) { .how = how };
}

static void
choose_randomly (struct enumeration *e, bool torn)
{
  const unsigned bias = 1 + rng_below (&e->rng, 3);

  for (size_t i = 0; i < e->opens; i++) {
    struct choice *c = &e->choice[i];

    c->seed = rng_next (&e->rng);
    c->how = rng_below (&e->rng, 4) < bias ? ALL : NONE;
    if (torn && rng_below (&e->rng, 4) == 0)
      c->how = PREFIX + rng_below (&e->rng, 3);
  }
}

/* Every part of a small set.  with_last: those that have its last one; the
 * others are known.
 */
static bool
try_exhaustively (struct enumeration *e, bool with_last)
{
  const size_t n = e->opens;

  for (size_t mask = 0; mask < (size_t) 1 << n; mask++) {
    if (with_last && !(mask >> (n - 1)))
      continue;
    for (size_t i = 0; i < n; i++)
      e->choice[i] = (struct choice) { .how = mask >> i & 1 ? ALL : NONE };
    if (!try_state (e))
      return false;
  }
  return true;
}

static bool
try_samples (struct enumeration *e)
{
  for (unsigned all = 0; all < 2; all++) {
    choose_all (e, all ? ALL : NONE);
    if (!try_state (e))
      return false;
    for (size_t i = 0; i < e->opens; i++) {
      e->choice[i].how = all ? NONE : ALL;
      if (!try_state (e))
        return false;
      e->choice[i].how = all ? ALL : NONE;
    }
  }
  choose_all (e, NONE);
  for (size_t i = 0; i < e->opens; i++) {
    e->choice[i].how = ALL;
    if (!try_state (e))
      return false;
  }
  for (unsigned i = 0; i < 32; i++) {
    choose_randomly (e, i & 1);
    if (!try_state (e))
      return false;
  }
  return true;
}

/* The last one is torn, and the others are there or not. */
static bool
try_torn (struct enumeration *e)
{
  for (unsigned i = 0; i < 9; i++) {
    if (i % 3 == 2)
      choose_randomly (e, false);
    else
      choose_all (e, i % 3 ? ALL : NONE);
    e->choice[e->opens - 1] = (struct choice) {
      .how = PREFIX + i / 3, .seed = rng_next (&e->rng)
    };
    if (!try_state (e))
      return false;
  }
  return true;
}

/* --- walking through the log --- */

static void
apply_to_base (struct enumeration *e, unsigned file)
{
  size_t left = 0;
  bool uncertain = false;

  for (size_t i = 0; i < e->opens; i++) {
    struct open_op *o = &e->open[i];

    if (o->op->file == file && !o->lost)
      o->certain = true;
    /* The base has what nothing uncertain comes before. */
    if (o->op->file == file && !o->certain)
      uncertain = true;
    if (o->op->file == file && o->certain && !uncertain)
      memory_file_apply (&e->base[file], o->op);
    else
      e->open[left++] = *o;
  }
  e->opens = left;
}

static void
add_open (struct enumeration *e, const struct memory_op *op)
{
  if (e->opens == e->room) {
    e->room = e->room ? 2 * e->room : 64;
    e->open = need (realloc (e->open, e->room * sizeof *e->open));
    e->choice = need (realloc (e->choice, e->room * sizeof *e->choice));
  }
  e->open[e->opens++] = (struct open_op) { .op = op };
}

static void
note_flushes (struct enumeration *e)
{
  for (size_t i = 0; i < e->w->flushes; i++)
    if (e->w->flushed[i].end <= e->cut
        && e->w->flushed[i].begin > e->flushed)
      e->flushed = e->w->flushed[i].begin;
}

static bool
try_cut (struct enumeration *e)
{
  const struct memory_log *log = &e->w->log;
  const struct memory_op *last = e->cut ? &log->op[e->cut - 1] : NULL;
  const struct memory_op *next =
    e->cut < log->count ? &log->op[e->cut] : NULL;
  const bool grown = last && is_change (last);

  e->stats->cuts += !e->counting;
  e->stats->cuts_in_full += !e->counting && e->opens <= 8;
  if (e->opens <= 8) {
    if (!try_exhaustively (e, grown))
      return false;
  }
  else if (next == NULL || !is_change (next) || !grown) {
    if (!try_samples (e))
      return false;
  }
  else {
    choose_all (e, NONE);
    e->choice[e->opens - 1].how = ALL;
    if (!try_state (e))
      return false;
    for (unsigned i = 0; i < 4; i++) {
      choose_randomly (e, i & 1);
      e->choice[e->opens - 1].how = ALL;
      if (!try_state (e))
        return false;
    }
  }
  return !grown || op_sectors (last) == 1 || try_torn (e);
}

static bool
enumerate (struct enumeration *e, bool counting)
{
  const struct memory_log *log = &e->w->log;

  e->counting = counting;
  e->opens = 0;
  e->flushed = 0;
  for (unsigned i = 0; i < 2; i++)
    memory_file_copy (&e->base[i], &e->w->start[i]);
  for (e->cut = 0; e->cut <= log->count; e->cut++) {
    if (e->cut > 0) {
      const struct memory_op *op = &log->op[e->cut - 1];

      if (is_change (op))
        add_open (e, op);
      else if (op->kind == MEMORY_FLUSH && !op->failed)
        apply_to_base (e, op->file);
      else if (op->kind == MEMORY_FLUSH)
        for (size_t i = 0; i < e->opens; i++)
          e->open[i].lost |= e->open[i].op->file == op->file;
    }
    note_flushes (e);
    if (!try_cut (e))
      return false;
  }
  return true;
}

static void
show_log (const struct world *w)
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

static void
show_step (const struct world *w, const struct step *s)
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

/* Whoever asked for what failed must have been told, but: that a place cannot
 * be given back concerns nobody; where space has run out, we may have found
 * some; and what could not be read was perhaps not needed, or was read again.
 */
static void
check_errors (struct world *w, const struct memory_fault *fault)
{
  if (w->log.faults_met && w->first_error == 0
      && fault->kind != MEMORY_DISCARD && fault->kind != MEMORY_READ
      && fault->kind != MEMORY_ALLOC && fault->error != ENOSPC)
    world_fail (w, "a %s failed, but no request did",
                memory_kind_name (fault->kind));
  if (w->first_error && w->first_error != -fault->error
      && w->first_error != -EIO)
    world_fail (w, "%s became %s", strerror (fault->error),
                strerror (-w->first_error));
}

bool
crash_run (const struct workload *workload,
           const struct crash_options *options, struct crash_stats *stats,
           char failure[1024])
{
  struct world w;
  struct enumeration e = {
    .w = &w, .workload = workload, .options = options, .stats = stats,
    .rng = { options->seed }, .failure = failure,
  };
  bool ok = false;

  failure[0] = '\0';
  world_open (&w, workload->spec, workload->l2_cache);
  w.log.fault = workload->fault;
  memory_alloc_log = workload->fault.kind == MEMORY_ALLOC ? &w.log : NULL;
  w.expect_errors = workload->fault.nth;
  if (w.expect_errors)
    w.fault_kind = workload->fault.kind;
  w.fault_lasts = workload->fault.lasting;
  for (size_t i = 0; i < workload->steps && w.failure[0] == '\0'; i++) {
    if (getenv ("QCOW2EXT_TEST_VERBOSE"))
      show_step (&w, &workload->step[i]);
    world_step (&w, &workload->step[i]);
  }
  world_close (&w);

  check_errors (&w, &workload->fault);
  stats->faults += w.log.faults_met;
  stats->pauses += w.pauses_met;
  stats->workloads++;
  if (w.failure[0])
    snprintf (failure, 1024, "%s", w.failure);
  else {
    memory_file_copy (&e.state[MEMORY_BACKING], &w.start[MEMORY_BACKING]);
    e.guest = need (malloc (workload->spec->size));
    e.fate = need (malloc (w.sectors));
    ok = enumerate (&e, true) && enumerate (&e, false);
  }
  if (getenv ("QCOW2EXT_TEST_VERBOSE"))
    show_log (&w);

  for (unsigned i = 0; i < 2; i++)
    memory_file_free (&e.base[i]);
  memory_files_free (e.state);
  free (e.open);
  free (e.choice);
  free (e.guest);
  free (e.fate);
  free (e.tried.slot);
  checker_free (&e.checker);
  world_free (&w);
  return ok;
}
