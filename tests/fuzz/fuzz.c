/* qcow2ext: what the fuzzers share.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "toy-cipher.h"
#include "image/image.h"
#include "base/report.h"
#include "data/decoded-cache.h"

#define PATTERN_BYTES 65536
#define FUZZ_DISK (256 << 10)

void
fuzz_fail (const char *fmt, ...)
{
  va_list ap;

  va_start (ap, fmt);
  fputs ("FAIL: ", stderr);
  vfprintf (stderr, fmt, ap);
  fputs ("\n", stderr);
  va_end (ap);
  abort ();
}

/* Each file has one of its own. */
static void
fill (struct memory_file *file, unsigned which, uint32_t number)
{
  static uint8_t pattern[MEMORY_FILES][PATTERN_BYTES];
  static bool made[MEMORY_FILES];

  for (uint64_t i = 0; !made[which] && i < PATTERN_BYTES / MEMORY_SECTOR; i++)
    make_pattern (pattern[which] + i * MEMORY_SECTOR, number, i);
  made[which] = true;
  memory_file_write (&file[which], pattern[which], PATTERN_BYTES, 0);
}

/* Their memory is kept from one input to the next. */
static struct memory_file *
no_files (void)
{
  static struct memory_file file[MEMORY_FILES];

  for (unsigned i = 0; i < MEMORY_FILES; i++)
    memory_file_resize (&file[i], 0);
  return file;
}

/* How much of a cluster an input has. */
static size_t
part_of (unsigned bits)
{
  return bits >= 14 && bits <= 16 ? FUZZ_PART : (size_t) 1 << bits;
}

/* Puts what an input has of clusters where they belong, from offset on. */
static void
put_clusters (struct memory_file *f, unsigned bits, uint64_t offset,
              const uint8_t *data, size_t size)
{
  const uint64_t cluster = UINT64_C (1) << bits;
  const size_t part = part_of (bits);

  for (size_t pos = 0; pos < size; pos += part, offset += cluster) {
    const size_t n = size - pos < part ? size - pos : part;

    memory_file_write (f, data + pos, n, offset);
    if (n == part && f->size < offset + cluster)
      memory_file_resize (f, offset + cluster);
  }
}

/* The reverse: returns their size, or 0 if there is no room. */
static size_t
get_clusters (const struct memory_file *f, unsigned bits, uint64_t offset,
              uint8_t *input, size_t room)
{
  const uint64_t cluster = UINT64_C (1) << bits;
  const size_t part = part_of (bits);
  size_t size = 0;

  for (; offset < f->size; offset += cluster) {
    const size_t n = f->size - offset < part ? f->size - offset : part;

    if (n > room - size)
      return 0;
    memcpy (input + size, f->bytes + offset, n);
    size += n;
  }
  return size;
}

size_t
fuzz_session_seed (const struct memory_file *image, uint8_t *input,
                   size_t room)
{
  size_t size =
    get_clusters (image, hostile_get (image, 20, 4), 0, input, room);

  size = size ? fuzz_add_requests (input, size, room) : 0;
  if (size == 0 || size == room)
    return 0;
  input[size++] = 0;
  return size;
}

/* Files of an input: the image is a copy of what is given, the backing file has
 * patterns, and so has the data file unless it is to be empty.
 */
static struct memory_file *
session_files (const uint8_t *image, size_t size, bool pair, bool empty)
{
  struct memory_file *file = no_files (), *f = &file[MEMORY_IMAGE];
  const unsigned bits = image[20] | image[21] | image[22] ? 0 : image[23];

  put_clusters (f, bits >= 14 && bits <= 16 ? bits : 9, 0, image, size);
  if (pair) {
    hostile_put (f, 4, 4, 3);
    hostile_put (f, 79, 1, hostile_get (f, 79, 1) | 4);
  }
  if (!empty && (pair || (image[7] == 3 && size >= 80 && (image[79] & 4))))
    fill (file, MEMORY_DATA, PATTERN_INITIAL);
  if (image[14] || image[15])
    fill (file, MEMORY_BACKING, PATTERN_BACKING);
  return file;
}

struct fuzz_layout
fuzz_layout (const uint8_t choice[FUZZ_CHOICE])
{
  struct fuzz_layout l = {
    .bits = 9 + (choice[0] & 7) % 6, .extended = choice[0] & 8,
    .external = choice[0] & 16, .version = choice[0] & 32 ? 2 : 3,
    .zstd = choice[0] & 64, .dirty = choice[0] & 128,
    .order = choice[1] & 7, .l1_entries = 1 + (choice[1] >> 3),
  };

  if (l.order > 6)
    l.order = 6;
  if (l.version == 2) {
    l.extended = l.external = l.zstd = l.dirty = false;
    l.order = 4;
  }
  if (l.extended && l.bits < 14)
    l.bits = 14;
  l.cluster = UINT64_C (1) << l.bits;
  l.size = l.l1_entries * (l.cluster / (l.extended ? 16 : 8)) * l.cluster;
  /* So that the model of a sound disk is small. */
  if (l.size > FUZZ_DISK)
    l.size = FUZZ_DISK;
  return l;
}

void
fuzz_header (struct memory_file *f, const struct fuzz_layout *l)
{
  memory_file_zero (f, l->cluster, 0);
  if (f->size < l->cluster)
    memory_file_resize (f, l->cluster);
  hostile_put (f, 0, 4, 0x514649fb);
  hostile_put (f, 4, 4, l->version);
  hostile_put (f, 20, 4, l->bits);
  hostile_put (f, 24, 8, l->size);
  hostile_put (f, 36, 4, l->l1_entries);
  hostile_put (f, 40, 8, l->cluster);
  hostile_put (f, 48, 8, 2 * l->cluster);
  hostile_put (f, 56, 4, 1);
  if (l->version < 3)
    return;
  hostile_put (f, 72, 8, l->dirty | l->external << 2 | l->zstd << 3
               | l->extended << 4);
  hostile_put (f, 96, 4, l->order);
  hostile_put (f, 100, 4, 112);
  hostile_put (f, 104, 1, l->zstd);
  if (l->external) {
    hostile_put (f, 112, 8, UINT64_C (0x4441544100000004));
    hostile_put (f, 120, 8, UINT64_C (0x6461746100000000));
  }
}

struct memory_file *
fuzz_layout_files (const uint8_t *data, size_t size,
                   struct fuzz_layout *layout)
{
  struct memory_file *file = no_files ();

  *layout = fuzz_layout (data);
  fuzz_header (&file[MEMORY_IMAGE], layout);
  put_clusters (&file[MEMORY_IMAGE], layout->bits, layout->cluster,
                data + FUZZ_CHOICE, size - FUZZ_CHOICE);
  if (layout->external)
    fill (file, MEMORY_DATA, PATTERN_INITIAL);
  return file;
}

/* The image-maker puts the refcount table into cluster 1, its blocks and then
 * the L1 table behind it.  Swap cluster 1 with the L1 table, then cluster 2.
 */
size_t
fuzz_layout_seed (const struct hostile_base *base,
                  const struct memory_file *image, uint8_t *input,
                  size_t room)
{
  const struct image_spec *spec = &base->spec;
  const uint64_t cluster = UINT64_C (1) << spec->cluster_bits;
  const uint64_t l1 = hostile_get (image, 40, 8);
  const uint64_t l1_entries = hostile_get (image, 36, 4);
  const uint64_t block = hostile_get (image, hostile_get (image, 48, 8), 8);
  struct memory_file f = { 0 };
  size_t size;

  if (spec->cluster_bits > 14 || l1_entries > 32 || block == 0
      || room < FUZZ_CHOICE || l1 <= cluster)
    return 0;
  memory_file_copy (&f, image);
  /* L1 -> 1, refcount table -> 2, its block -> where the L1 table was. */
  memory_file_write (&f, image->bytes + l1, cluster, cluster);
  memory_file_write (&f, image->bytes + cluster, cluster, 2 * cluster);
  memory_file_write (&f, image->bytes + block, cluster, l1);
  hostile_put (&f, 2 * cluster, 8, l1);
  memset (input, 0, FUZZ_CHOICE);
  input[0] = (spec->cluster_bits - 9) | (spec->extended ? 8 : 0)
    | (spec->external ? 16 : 0) | (spec->version == 2 ? 32 : 0);
  input[1] = spec->refcount_order | (l1_entries - 1) << 3;
  size = get_clusters (&f, spec->cluster_bits, cluster, input + FUZZ_CHOICE,
                       room - FUZZ_CHOICE);
  memory_file_free (&f);
  return size ? size + FUZZ_CHOICE : 0;
}

size_t
fuzz_requests (const uint8_t *data, size_t *size,
               struct hostile_request request[FUZZ_REQUESTS])
{
  size_t n, disk = 65536;

  if (*size == 0)
    return 0;
  n = data[--*size] % FUZZ_REQUESTS;
  if (n > *size / 4)
    n = *size / 4;
  *size -= 4 * n;
  return hostile_decode (data + *size, 4 * n, disk, request, n);
}

/* Some of each kind. */
size_t
fuzz_add_requests (uint8_t *input, size_t size, size_t room)
{
  static const uint8_t requests[] = {
    HOSTILE_WRITE, 0, 0, 0, HOSTILE_FLUSH, 0, 0, 0,
    HOSTILE_WRITE | 32, 0, 3, 20, HOSTILE_ZERO, 0, 9, 10,
    HOSTILE_TRIM, 0, 20, 20, HOSTILE_SETTLE, 0, 0, 0,
    HOSTILE_WRITE, 0, 0, 255, HOSTILE_READ, 0, 0, 255,
    HOSTILE_TRIM, 0, 0, 255, HOSTILE_FLUSH, 0, 0, 0,
    HOSTILE_WRITE, 0, 8, 40, HOSTILE_EXTENTS, 0, 0, 255,
    HOSTILE_REOPEN, 0, 0, 0, HOSTILE_WRITE, 128, 1, 1,
    HOSTILE_KINDS * 8 + HOSTILE_WRITE, 0, 0, 60, /* zeros */
    HOSTILE_KINDS * 15 + HOSTILE_WRITE, 0, 16, 60, /* noise */
    HOSTILE_READ, 0, 0, 255, HOSTILE_WRITE, 0, 0, 100,
  };

  /* So that multiples of it have flags in their upper bits. */
  _Static_assert (HOSTILE_KINDS == 9, "the bytes above");
  if (size + sizeof requests + 1 > room)
    return 0;
  memcpy (input + size, requests, sizeof requests);
  size += sizeof requests;
  input[size++] = sizeof requests / 4;
  return size;
}

static void
sink (enum report_level level, const char *message)
{
  (void) level, (void) message;
}

static int
open_data (void *opaque, unsigned depth, const struct store *of,
           const char *name, struct store **store)
{
  (void) depth, (void) of, (void) name;
  *store = store_memory_new (opaque, NULL, MEMORY_DATA, false);
  return 0;
}

static int
open_backing (void *opaque, unsigned depth, const struct store *of,
              const char *name, const char *format, struct store **store,
              enum image_format *as)
{
  (void) opaque, (void) depth, (void) of, (void) name, (void) format;
  *store = NULL;
  *as = IMAGE_RAW;
  return 0;
}

struct image *
fuzz_open (struct memory_file *file)
{
  const struct image_env env = {
    .open_data = open_data, .open_backing = open_backing,
    .open_encrypted = toy_open_encrypted,
    .opaque = &file[MEMORY_DATA],
  };
  const struct image_options options = {
    .env = &env, .l2_cache_size = 8192, .decoded = decoded_cache_new (65536),
  };
  struct image *image;
  int r;

  report_set_sink (sink);
  r = image_open (store_memory_new (&file[MEMORY_IMAGE], NULL, MEMORY_IMAGE,
                                    false), &options, &image);
  decoded_cache_unref (options.decoded);
  return r < 0 ? NULL : image;
}

void
fuzz_run (struct hostile_run *run)
{
  if (!hostile_run (run))
    fuzz_fail ("%s", run->failure);
}

int
fuzz_session (const uint8_t *data, size_t size, bool pair, bool compress)
{
  struct hostile_request request[FUZZ_REQUESTS];
  struct hostile_run run = { .writable = true, .write.compress = compress };
  uint8_t how;

  if (size < 72)
    return 0;
  how = data[--size];
  run.check = how & 1;
  run.write.detect_zeroes = (how >> 2) % (DETECT_UNMAP + 1);
  run.request = request;
  run.requests = fuzz_requests (data, &size, request);
  if (size < 24)
    return 0;
  run.file = session_files (data, size, pair, how & 2);
  fuzz_run (&run);
  return 0;
}

#ifdef FUZZ_LIBFUZZER
/* The layout of an image is rigid: bytes that move make it nonsense.  So half
 * of the time, put a likely value where a field may be.
 */
size_t LLVMFuzzerMutate (uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t max,
                                unsigned seed);

/* Does the word look like an entry of a table, which leads to a cluster? */
static bool
is_pointer (const uint8_t *p)
{
  return (p[0] & 0x3f) == 0 && p[1] == 0 && p[2] == 0 && p[3] == 0
    && p[4] == 0 && p[5] < 0x40 && (p[7] & 0xfe) == 0
    && (p[5] || p[6] > 1) && (p[6] & 1) == 0;
}

/* Finds one, or returns the last that was looked at. */
static size_t
some_pointer (const uint8_t *data, size_t size, uint64_t random)
{
  size_t i = random % (size / 8);

  for (size_t n = 0; n < size / 8 && !is_pointer (data + i * 8); n++)
    i = (i + 1) % (size / 8);
  return i * 8;
}

size_t
LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t max,
                         unsigned seed)
{
  static const uint64_t flags[] = {
    0, UINT64_C (1) << 63, UINT64_C (1) << 63 | 1, 1, UINT64_C (1) << 62
  };
  uint64_t x = seed * UINT64_C (0x9e3779b97f4a7c15) + 1, v;
  unsigned width, times;
  size_t at;

#define NEXT(n) (x ^= x << 13, x ^= x >> 7, x ^= x << 17, x % (n))
  if (size < 64 || NEXT (2))
    return LLVMFuzzerMutate (data, size, max);
  for (times = 1 + NEXT (3); times > 0; times--) {
    width = NEXT (3) ? 8 : 4;
    at = NEXT (4) ? NEXT (size / 8) * 8 : NEXT (120 < size ? 15 : 8) * 8;
    if (at + width > size)
      continue;
    switch (NEXT (6)) {
    case 4:                     /* where another entry leads, with its flags */
    case 5:
      at = some_pointer (data, size, NEXT (UINT64_MAX));
      memmove (data + at + 1, data + some_pointer (data, size,
                                                   NEXT (UINT64_MAX)) + 1, 7);
      continue;
    case 0:                     /* as elsewhere */
      memmove (data + at, data + NEXT (size / 8 - 1) * 8, width);
      continue;
    case 1:
      v = flags[NEXT (5)];
      v |= NEXT (64) * 512;
      break;
    case 2:
      v = NEXT (2) ? UINT64_MAX << NEXT (64) : (UINT64_C (1) << NEXT (64));
      break;
    default:
      v = NEXT (16);
      break;
    }
    for (unsigned i = 0; i < width; i++)
      data[at + i] = v >> (8 * (width - 1 - i));
  }
#undef NEXT
  return size;
}
#endif
