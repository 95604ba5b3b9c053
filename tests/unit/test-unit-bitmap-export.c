/* qcow2ext: the extents of a bitmap are its bits, and few.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A bitmap of a large disk has so many bits that one extent for each takes
 * seconds.  Within a chunk (the bits in one cluster of the bitmap) there must
 * be one for each run of equal bits, whatever range is asked for.  The bytes
 * that have changed are those of the bits that are set.
 *
 * With the layers below, the bitmaps of all of them must be sound: else nobody
 * knows what has changed.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image-maker.h"
#include "data/decoded-cache.h"
#include "image/chain.h"
#include "image/image.h"

#define GRANULE 512
#define CHUNK_BITS 4096         /* clusters have 512 bytes */
#define CHUNKS 3
#define BITS (2 * CHUNK_BITS + 2049)
#define ROUNDS 200
#define RANGES 20

static uint64_t state = 1;      /* of the random numbers; fixed */
static unsigned failures;

static uint64_t
random_below (uint64_t n)
{
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state % n;
}

/* Runs of lengths from one bit to much more than a word. */
static void
random_bits (uint8_t *bits)
{
  bool set = random_below (2);

  memset (bits, 0, CHUNKS * CHUNK_BITS / 8);
  for (size_t i = 0; i < CHUNKS * CHUNK_BITS; set = !set) {
    const size_t n = 1 + random_below (UINT64_C (1) << random_below (12));

    for (size_t end = i + n; i < end && i < CHUNKS * CHUNK_BITS; i++)
      bits[i / 8] |= set << (i % 8);
  }
}

static bool
is_dirty (const uint8_t *bits, uint64_t offset)
{
  const uint64_t bit = offset / GRANULE;

  return bits[bit / 8] >> (bit % 8) & 1;
}

struct seen {
  const uint8_t *bits;
  uint64_t next;                /* where the next extent must begin */
  unsigned extents;
  const char *wrong;
};

static int
see (void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
  struct seen *s = opaque;

  if (offset != s->next || length == 0)
    s->wrong = "a gap";
  for (uint64_t at = offset; at < offset + length; at += GRANULE)
    if (is_dirty (s->bits, at) != (type == EXTENT_DATA))
      s->wrong = "a bit";
  if (is_dirty (s->bits, offset + length - 1) != (type == EXTENT_DATA))
    s->wrong = "the last bit";
  s->next = offset + length;
  s->extents++;
  return 0;
}

/* Runs of equal bits in a range, cut at the ends of chunks. */
static unsigned
count_runs (const uint8_t *bits, uint64_t offset, uint64_t end)
{
  unsigned n = 1;

  for (uint64_t bit = offset / GRANULE + 1; bit <= (end - 1) / GRANULE; bit++)
    n += bit % CHUNK_BITS == 0
      || is_dirty (bits, bit * GRANULE) != is_dirty (bits, (bit - 1) * GRANULE);
  return n;
}

/* The bitmap is the fourth. */
static bool
are_changed (struct image *image, const uint8_t *bits)
{
  uint64_t bytes, n = 0;

  for (uint64_t bit = 0; bit < BITS; bit++)
    n += is_dirty (bits, bit * GRANULE);
  return image_bitmap_changed (image, 3, &bytes) == 0
    && bytes == n * GRANULE;
}

static void
test_round (struct image *image, struct memory_file *file, unsigned round)
{
  uint8_t bits[CHUNKS * CHUNK_BITS / 8];

  random_bits (bits);
  for (unsigned i = 0; i < CHUNKS; i++)
    memory_file_write (file, bits + i * (CHUNK_BITS / 8), CHUNK_BITS / 8,
                       be64_get (image->exported->table[i]));
  if (!are_changed (image, bits)) {
    failures++;
    printf ("FAIL: round %u: the bytes that have changed\n", round);
  }

  for (unsigned i = 0; i < RANGES; i++) {
    const uint64_t size = image_size (image);
    const uint64_t offset = i ? random_below (size) : 0;
    const uint64_t end = i ? offset + 1 + random_below (size - offset) : size;
    struct seen s = { .bits = bits, .next = offset };

    if (image_extents (image, end - offset, offset, see, &s) != 0
        || s.next != end)
      s.wrong = "the end";
    else if (s.wrong == NULL && s.extents != count_runs (bits, offset, end))
      s.wrong = "the number of extents";
    if (s.wrong) {
      failures++;
      printf ("FAIL: round %u: %s is wrong between %" PRIu64 " and %" PRIu64
              "\n", round, s.wrong, offset, end);
    }
  }
}

/* The layer below, if there is one. */
static int
open_backing (void *opaque, unsigned depth, const struct store *of,
              const char *name, const char *format, struct store **store,
              enum image_format *as)
{
  struct memory_file *file = opaque;

  (void) of, (void) name, (void) format;
  *as = IMAGE_QCOW2;
  *store = file && depth == 0
    ? store_memory_new (file, NULL, MEMORY_IMAGE, false) : NULL;
  return 0;
}

static int
open_with (struct memory_file *file, struct memory_file *below,
           bool chain, char letter, struct image **image)
{
  const struct image_env env = {
    .open_backing = open_backing, .opaque = below,
  };
  char name[600 + 1] = "";
  const char *const names[] = { name };
  const struct image_options options = {
    .env = &env, .bitmaps = names, .nr_bitmaps = 1, .bitmap_chain = chain,
    .l2_cache_size = 1 << 20, .decoded = decoded_cache_new (1 << 20),
  };
  int r;

  memset (name, letter, 600);   /* see make_bitmaps */
  r = image_open (store_memory_new (file, NULL, MEMORY_IMAGE, false), &options,
                  image);
  decoded_cache_unref (options.decoded);
  return r;
}

/* Opens the image with one below whose byte has this value. */
static void
test_chain (struct memory_file *file, uint64_t offset, uint8_t value,
            int wanted)
{
  struct memory_file below = { 0 };
  struct image *image;
  int r;

  memory_file_copy (&below, file);
  below.bytes[offset] = value;
  r = open_with (file, &below, true, 'd', &image);
  if (r == 0)
    image_close (image);
  if (r != wanted) {
    failures++;
    printf ("FAIL: with byte %" PRIu64 " of the layer below: %d\n", offset, r);
  }
  memory_file_free (&below);
}

static char last[2000];         /* message */

static void
sink (enum report_level level, const char *message)
{
  (void) level;
  strncpy (last, message, sizeof last - 1);
}

int
main (void)
{
  static const struct image_spec spec = {
    .name = "bitmaps", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = (uint64_t) BITS * GRANULE, .map = ".", .bitmaps = true,
  };
  struct memory_file file = { 0 }, data = { 0 }, backing = { 0 };
  uint8_t *guest = malloc (spec.size);
  struct image *image;

  make_image (&spec, &file, &data, &backing, guest);
  if (open_with (&file, NULL, false, 'd', &image) < 0)
    return EXIT_FAILURE;
  for (unsigned i = 0; i < ROUNDS; i++)
    test_round (image, &file, i);
  image_close (image);

  /* The first one and those behind it; the last is not to be had. */
  report_set_sink (sink);
  for (char letter = 'a'; letter <= 'e'; letter++) {
    const int r = open_with (&file, NULL, false, letter, &image);

    if (r == 0)
      image_close (image);
    if (r != (letter == 'e' ? -EINVAL : 0)) {
      failures++;
      printf ("FAIL: bitmap %c: %d\n", letter, r);
    }
  }
  if (open_with (&file, NULL, false, 'z', &image) != -ENOENT
      || strstr (last, "the bitmaps are: aaa") == NULL) {
    failures++;
    printf ("FAIL: no bitmap z: %s\n", last);
  }

  test_chain (&file, 0, file.bytes[0], 0);
  test_chain (&file, 95, 0, -EINVAL); /* the flag of the bitmaps is lost */
  test_chain (&file, 115, 99, -EINVAL); /* so many there are not */

  memory_file_free (&file);
  memory_file_free (&data);
  memory_file_free (&backing);
  free (guest);
  printf ("%u rounds of %u ranges, %u failures\n", ROUNDS, RANGES, failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
