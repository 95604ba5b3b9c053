/* qcow2ext: uses an image that nobody vouches for, and watches.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/check.h"
#include "hostile-session.h"
#include "toy-cipher.h"
#include "need.h"
#include "image/chain.h"
#include "image/image.h"
#include "base/report.h"
#include "data/decoded-cache.h"

/* Disks up to this size are compared as a whole. */
#define MODEL_MAX (UINT64_C (4) << 20)

/* Operations that opening, a request or closing may take, beside some for each
 * cluster.
 */
#define OPERATIONS_MAX 20000
#define OPERATIONS_PER_CLUSTER 64

/* Lines between opening and closing.  Messages about ranges are limited to a
 * few a second, and the check writes up to 20.
 */
#define MESSAGES_MAX 60

/* Larger buffers are mapped and unmapped each time. */
#define READ_WINDOW (UINT64_C (64) << 10)

/* What a sector of the guest's disk should be. */
enum known { KNOWN, OR_ZERO, UNKNOWN };

/* The sink knows only this. */
static struct hostile_run *current;

void
session_fail (struct session *s, const char *fmt, ...)
{
  va_list ap;

  if (s->run->failure[0])
    return;
  va_start (ap, fmt);
  vsnprintf (s->run->failure, sizeof s->run->failure, fmt, ap);
  va_end (ap);
}

static void
sink (enum report_level level, const char *message)
{
  if (level == REPORT_DEBUG)
    return;
  if (getenv ("QCOW2EXT_TEST_VERBOSE"))
    fprintf (stderr, "%s\n", message);
  current->messages++;
  for (const char *p = message; *p; p++)
    if ((unsigned char) *p < ' ' && !current->failure[0])
      snprintf (current->failure, sizeof current->failure,
                "a message holds a control character");
}

/* ---------------------------------------------------------------------
 * The engine's surroundings.
 */

/* Between these two, what happens is the engine's doing. */
static void
enter_engine (struct session *s)
{
  s->judging = memory_in_engine = true;
}

static void
leave_engine (struct session *s)
{
  s->judging = memory_in_engine = false;
}

static int
open_data (void *opaque, unsigned depth, const struct store *of,
           const char *name, struct store **store)
{
  struct session *s = opaque;

  (void) depth, (void) of, (void) name;
  leave_engine (s);
  *store = store_memory_new (&s->run->file[MEMORY_DATA], &s->log, MEMORY_DATA,
                             false);
  enter_engine (s);
  return 0;
}

static int
open_backing (void *opaque, unsigned depth, const struct store *of,
              const char *name, const char *format, struct store **store,
              enum image_format *as)
{
  struct session *s = opaque;

  (void) of, (void) format;
  leave_engine (s);
  *store = name && depth < 2
    ? store_memory_new (&s->run->file[MEMORY_BACKING], &s->log,
                        MEMORY_BACKING, false) : NULL;
  enter_engine (s);
  *as = IMAGE_RAW;
  return 0;
}

static const char *
refuse (void *opaque, bool has_data_file)
{
  (void) opaque, (void) has_data_file;
  return NULL;
}

/* Where the proof would be written, nothing may be. */
static int
prove (void *opaque, uint64_t offset, uint64_t length, bool grow,
       bool *can_grow)
{
  struct session *s = opaque;

  if (grow && offset < s->run->file[MEMORY_IMAGE].size)
    session_fail (s, "the proof would be written within the file");
  if (s->walker.valid
      && walker_what (&s->walker, offset, length) & IS_METADATA)
    session_fail (s, "the proof would be written over metadata");
  *can_grow = grow;
  return 0;
}

/* Nearly all of the time goes into walking. */
static void
walk (struct session *s)
{
  if (!s->walked)
    walker_run (&s->walker, &s->run->file[MEMORY_IMAGE]);
  s->walked = true;
}

static void
begin_request (struct session *s, bool change)
{
  s->operations = 0;
  s->budget = OPERATIONS_MAX
    + OPERATIONS_PER_CLUSTER * (s->run->file[MEMORY_IMAGE].size / 512);
  s->changing |= change;
}

static int
open_image (struct session *s)
{
  static struct image_env env;
  static struct image_write_env write_env;
  struct image_options options;
  struct hostile_run *run = s->run;
  struct store *store;
  int r;

  env = (struct image_env) {
    .open_data = open_data, .open_backing = open_backing,
    .open_encrypted = toy_open_encrypted, .opaque = s
  };
  write_env = (struct image_write_env) {
    .refuse = refuse, .prove = prove, .opaque = s
  };
  options = (struct image_options) {
    .env = &env, .write_env = run->writable && !run->snapshot ? &write_env : NULL,
    .snapshot = run->snapshot, .check = run->check,
    .bitmaps = &run->bitmap,
    .nr_bitmaps = run->bitmap != NULL,
    /* So little that tables are evicted. */
    .l2_cache_size = 4096, .decoded = decoded_cache_new (65536), .warn = true,
    .write = run->write,
  };
  walk (s);
  s->messages = run->messages;
  s->start_size = run->file[MEMORY_IMAGE].size;
  s->changing = false;
  begin_request (s, false);
  store = store_memory_new (&run->file[MEMORY_IMAGE], &s->log, MEMORY_IMAGE,
                            false);
  enter_engine (s);
  r = image_open (store, &options, &s->image);
  leave_engine (s);
  decoded_cache_unref (options.decoded);
  if (r == 0) {
    s->size = image_size (s->image);
    s->was_dirty = s->image->top->header.incompatible & QCOW2_INCOMPAT_DIRTY;
  }
  return r;
}

/* ---------------------------------------------------------------------
 * The model.
 */

/* Does the engine's check find nothing? */
static bool
check_is_clean (struct session *s, uint64_t *errors)
{
  struct check_result result = { 0 };
  int r;

  begin_request (s, false);
  enter_engine (s);
  r = layer_check (s->image->top, false, &result);
  leave_engine (s);
  free (result.counts);
  *errors = result.errors;
  return r == 0 && result.errors == 0;
}

/* May the other checker judge this image?  It knows less. */
static bool
is_simple (const struct image *image)
{
  const struct header *h = &image->top->header;

  return image_size (image) <= MODEL_MAX && image_size (image) > 0
    && h->nb_snapshots <= 1
    && !(h->incompatible & ~UINT64_C (0x14));
}

static void
run_checker (struct session *s)
{
  checker_run (&s->checker, &s->run->file[MEMORY_IMAGE],
               &s->run->file[MEMORY_DATA],
               s->image->top->backing ? &s->run->file[MEMORY_BACKING] : NULL);
}

static void
start_model (struct session *s)
{
  uint64_t errors;

  if (!check_is_clean (s, &errors) || !is_simple (s->image)
      || s->walker.overlap || s->run->snapshot)
    return;
  run_checker (s);
  if (s->checker.errors)
    return;
  s->run->sound = true;
  s->guest = need (malloc (s->size));
  memcpy (s->guest, s->checker.guest, s->size);
  s->known = need (calloc (1, s->size / MEMORY_SECTOR + 1));
  if (s->checker.has_snapshot) {
    s->snapshot = need (malloc (s->size));
    memcpy (s->snapshot, s->checker.snapshot, s->size);
  }
}

static void
set_known (struct session *s, enum known known, uint64_t offset,
           uint64_t length)
{
  for (uint64_t i = offset / MEMORY_SECTOR;
       length && i <= (offset + length - 1) / MEMORY_SECTOR; i++)
    if (known == UNKNOWN || s->known[i] != UNKNOWN)
      s->known[i] = known;
}

/* What was written whole is known again. */
static void
model_write (struct session *s, const uint8_t *buf, uint64_t offset,
             uint64_t length)
{
  if (s->guest == NULL)
    return;
  for (uint64_t i = offset; i < offset + length;) {
    const uint64_t sector = i & -(uint64_t) MEMORY_SECTOR;
    uint64_t n = sector + MEMORY_SECTOR - i;

    if (n > offset + length - i)
      n = offset + length - i;
    if (buf)
      memcpy (s->guest + i, buf + (i - offset), n);
    else
      memset (s->guest + i, 0, n);
    if (n == MEMORY_SECTOR)
      s->known[sector / MEMORY_SECTOR] = KNOWN;
    else if (s->known[sector / MEMORY_SECTOR] == OR_ZERO)
      s->known[sector / MEMORY_SECTOR] = UNKNOWN;
    i += n;
  }
}

static void
compare (struct session *s, const uint8_t *buf, uint64_t offset,
         uint64_t length, const char *who)
{
  if (s->guest == NULL || memcmp (buf, s->guest + offset, length) == 0)
    return;
  for (uint64_t i = 0; i < length; i++) {
    const uint64_t at = offset + i;
    const enum known known = s->known[at / MEMORY_SECTOR];

    if (known == UNKNOWN || buf[i] == s->guest[at]
        || (known == OR_ZERO && buf[i] == 0))
      continue;
    session_fail (s, "%s sees 0x%02x at offset 0x%" PRIx64 ", and not 0x%02x",
                  who, buf[i], at, s->guest[at]);
    return;
  }
}

/* ---------------------------------------------------------------------
 * Requests.
 */

struct extents {
  struct session *s;
  uint64_t next, end;
};

static int
see_extent (void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
  struct extents *e = opaque;
  struct session *s = e->s;
  uint8_t *buf;
  int r;

  if (offset != e->next || length == 0) {
    session_fail (s, "extents do not follow each other");
    return 1;
  }
  e->next += length;
  if (!(type & EXTENT_ZERO) || length > READ_WINDOW
      || s->image->exported || offset + length > image_size (s->image))
    return 0;
  buf = need (malloc (length));
  r = image_read (s->image, buf, length, offset);
  if (r < 0)
    session_fail (s, "the hole at 0x%" PRIx64 " cannot be read", offset);
  else if (buf[0] || memcmp (buf, buf + 1, length - 1) != 0)
    session_fail (s, "the hole at 0x%" PRIx64 " does not read as zeros",
                  offset);
  free (buf);
  return 0;
}

static int
get_extents (struct session *s, uint64_t offset, uint64_t length)
{
  struct extents e = { .s = s, .next = offset, .end = offset + length };
  const int r = image_extents (s->image, length, offset, see_extent, &e);

  if (r == 0 && e.next < offset + length)
    session_fail (s, "extents end too early");
  return r;
}

static int
do_read (struct session *s, uint64_t offset, uint64_t length)
{
  uint8_t *buf = need (malloc (length));
  const int r = image_read (s->image, buf, length, offset);

  if (r == 0)
    compare (s, buf, offset, length, "a reader");
  else if (s->guest)
    session_fail (s, "a sound image cannot be read at 0x%" PRIx64 ": %s",
                  offset, strerror (-r));
  free (buf);
  return r;
}

/* What does not compress: of a place, and of the number of the write. */
static uint8_t
noise (uint32_t number, uint64_t at)
{
  uint64_t x = (number * UINT64_C (0x9e3779b97f4a7c15)) ^ (at >> 3);

  x = (x ^ x >> 30) * UINT64_C (0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C (0x94d049bb133111eb);
  return (x ^ x >> 31) >> at % 8 * 8;
}

static int
do_write (struct session *s, uint64_t offset, uint64_t length, unsigned flags)
{
  uint8_t *buf = need (malloc (length));
  const uint32_t number = ++s->number;
  int r;

  for (uint64_t i = 0; i < length; i++) {
    const uint64_t at = offset + i;
    const uint64_t word = GUEST << 32 | (number << 16 | at / 512 % 65536);

    buf[i] = flags == HOSTILE_ZEROS ? 0
      : flags == HOSTILE_NOISE ? noise (number, at)
      : word >> (56 - at % 8 * 8);
  }
  r = image_write (s->image, buf, length, offset);
  if (r == 0)
    model_write (s, buf, offset, length);
  free (buf);
  return r;
}

static int
do_request (struct session *s, const struct hostile_request *request)
{
  const uint64_t size = image_size (s->image);
  uint64_t offset = request->offset, length = request->length;
  const bool change = request->kind <= HOSTILE_TRIM;
  int r = 0;

  if (offset >= size)
    offset = size ? offset % size : 0;
  if (length > size - offset)
    length = size - offset;
  if (length == 0 && request->kind != HOSTILE_FLUSH
      && request->kind != HOSTILE_SETTLE)
    return 0;
  begin_request (s, change);
  enter_engine (s);
  switch (request->kind) {
  case HOSTILE_WRITE:
    if (length > READ_WINDOW)
      length = READ_WINDOW;
    r = do_write (s, offset, length, request->flags);
    break;
  case HOSTILE_ZERO:
    r = image_zero (s->image, length, offset, request->flags);
    if (r == 0)
      model_write (s, NULL, offset, length);
    else if (r == -ENOTSUP && (request->flags & IMAGE_ZERO_FAST))
      goto out;                 /* nothing has changed */
    break;
  case HOSTILE_TRIM:
    r = image_trim (s->image, length, offset);
    if (r == 0 && s->guest)
      set_known (s, OR_ZERO, offset, length);
    break;
  case HOSTILE_FLUSH:
    r = image_flush (s->image);
    break;
  case HOSTILE_SETTLE:
    r = image_settle (s->image, request->flags & 1);
    break;
  case HOSTILE_READ:
    if (length > READ_WINDOW)
      length = READ_WINDOW;
    r = do_read (s, offset, length);
    break;
  case HOSTILE_EXTENTS:
    r = get_extents (s, offset, length);
    break;
  case HOSTILE_CACHE:
    image_cache (s->image, length, offset);
    break;
  default:
    break;
  }
  if (r < 0 && change && s->guest) /* perhaps in part */
    set_known (s, UNKNOWN, offset, length);
 out:
  leave_engine (s);
  s->run->done += r == 0;
  walk (s);
  return r;
}

static void
close_image (struct session *s)
{
  if (s->image == NULL)
    return;
  begin_request (s, false);
  enter_engine (s);
  image_settle (s->image, false);
  image_close (s->image);
  leave_engine (s);
  s->image = NULL;
  if (s->run->messages - s->messages > MESSAGES_MAX)
    session_fail (s, "%u lines were logged", s->run->messages - s->messages);
}

/* Before anything is changed. */
static void
look_around (struct session *s)
{
  const uint64_t size = image_size (s->image);
  const uint64_t tail = size > READ_WINDOW ? size - READ_WINDOW : 0;
  const struct hostile_request look[] = {
    { .kind = HOSTILE_EXTENTS, .length = 4 * READ_WINDOW },
    { .kind = HOSTILE_READ, .length = READ_WINDOW },
    { .kind = HOSTILE_EXTENTS, .offset = tail, .length = READ_WINDOW },
    { .kind = HOSTILE_READ, .offset = tail, .length = READ_WINDOW },
    { .kind = HOSTILE_READ, .offset = 100, .length = 1000 },
    { .kind = HOSTILE_CACHE, .length = READ_WINDOW },
    { .kind = HOSTILE_FLUSH },
    { .kind = HOSTILE_SETTLE },
  };

  for (size_t i = 0; i < sizeof look / sizeof look[0]; i++)
    do_request (s, &look[i]);
  /* However often somebody runs into what is wrong, it is said a few times. */
  for (unsigned i = 0; i < 2 * MESSAGES_MAX; i++) {
    const struct hostile_request read = {
      .kind = HOSTILE_READ, .offset = i * UINT64_C (512), .length = 512
    };

    do_request (s, &read);
  }
}

/* At the end, with the image opened anew. */
static void
verify (struct session *s)
{
  uint64_t errors;

  if (s->image->top->header.incompatible & QCOW2_INCOMPAT_CORRUPT) {
    session_fail (s, "a sound image has become corrupt");
    return;
  }
  if (!check_is_clean (s, &errors))
    session_fail (s, "a sound image has %" PRIu64 " errors", errors);
  run_checker (s);
  if (s->checker.errors)
    session_fail (s, "a sound image has %u errors: %s", s->checker.errors,
                  s->checker.message);
  else
    compare (s, s->checker.guest, 0, s->size, "another reader");
  if (s->snapshot
      && (!s->checker.has_snapshot
          || memcmp (s->snapshot, s->checker.snapshot, s->size) != 0))
    session_fail (s, "the snapshot has changed");
  begin_request (s, false);
  enter_engine (s);
  for (uint64_t o = 0; o < s->size; o += READ_WINDOW)
    do_read (s, o, s->size - o < READ_WINDOW ? s->size - o : READ_WINDOW);
  leave_engine (s);
}

static void
run_session (struct session *s)
{
  struct hostile_run *run = s->run;

  if (open_image (s) < 0)
    return;
  run->opened = true;
  run->could_write = image_is_writable (s->image);
  start_model (s);
  look_around (s);
  for (size_t i = 0; i < run->requests && !run->failure[0]; i++) {
    if (run->request[i].kind != HOSTILE_REOPEN) {
      do_request (s, &run->request[i]);
      continue;
    }
    close_image (s);
    if (open_image (s) < 0) {
      if (run->sound)
        session_fail (s, "a sound image cannot be opened again");
      return;
    }
  }
  close_image (s);
  if (run->failure[0])
    return;
  if (open_image (s) == 0) {
    if (run->sound)
      verify (s);
    close_image (s);
  }
  else if (run->sound)
    session_fail (s, "a sound image cannot be opened again");
}

bool
hostile_run (struct hostile_run *run)
{
  struct session s = { .run = run };

  run->opened = run->could_write = run->sound = false;
  run->done = run->messages = 0;
  run->operations = 0;
  run->failure[0] = '\0';
  current = run;
  report_set_sink (sink);
  memory_log_init (&s.log);
  s.log.hook = session_judge;
  s.log.opaque = &s;
  for (unsigned i = 0; i < MEMORY_FILES; i++)
    run->file[i].limit = HOSTILE_FILE_LIMIT;

  run_session (&s);
  if (s.image)
    image_close (s.image);

  memory_log_clear (&s.log);
  walker_free (&s.walker);
  walker_free (&s.now);
  checker_free (&s.checker);
  free (s.guest);
  free (s.snapshot);
  free (s.known);
  return run->failure[0] == '\0';
}

size_t
hostile_decode (const uint8_t *bytes, size_t size, uint64_t disk_size,
                struct hostile_request *request, size_t max)
{
  size_t n;

  for (n = 0; n < max && size >= 4; n++, bytes += 4, size -= 4) {
    const unsigned where = bytes[1] << 8 | bytes[2];
    struct hostile_request *q = &request[n];

    q->kind = bytes[0] % HOSTILE_KINDS;
    q->flags = bytes[0] >> 6 & 3;
    q->offset = (uint64_t) (where & 0x7fff) * 512;
    if (where & 0x8000)         /* from the end */
      q->offset = disk_size > q->offset ? disk_size - q->offset - 1 : 0;
    q->length = bytes[3] == 255 ? UINT64_C (1) << 20
      : bytes[3] > 127 ? (uint64_t) bytes[3] * 8
                       : ((uint64_t) bytes[3] + 1) * 512;
    if (bytes[0] & 32)
      q->offset += 77;
  }
  return n;
}
