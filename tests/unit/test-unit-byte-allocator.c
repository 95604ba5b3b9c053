/* qcow2ext: room for compressed clusters.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Pieces are taken and given back at random, in images of all widths of
 * refcounts: none overlaps another, a call's pieces begin on a sector that no
 * earlier call has touched, and each host cluster is counted once for each
 * piece in it.  What has lost all its pieces is as free as if it had never
 * been used.
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "crash-workloads.h"
#include "data/writer.h"
#include "image/chain.h"
#include "space/byte-allocator.h"

#define ROUNDS 3000
#define PIECES 64               /* at a time */
#define CLUSTER 1024

#define CHECK(x)                                                        \
  do {                                                                  \
    if (!(x)) {                                                         \
      fprintf (stderr, "%s:%d: not true: %s (order %u, round %u)\n",    \
               __FILE__, __LINE__, #x, order, round_number);            \
      exit (EXIT_FAILURE);                                              \
    }                                                                   \
  } while (0)

static unsigned order, round_number;
static struct packed live[PIECES];
static size_t lives;

/* A call's pieces have room for themselves, and no sector of others. */
static void
check_pieces (const struct packed *piece, size_t count)
{
  for (size_t i = 0; i < count; i++) {
    const uint64_t end = piece[i].host + piece[i].size;
    const bool follows =
      i > 0 && piece[i].host == piece[i - 1].host + piece[i - 1].size;

    CHECK (follows || piece[i].host % 512 == 0);
    for (size_t j = 0; j < lives; j++)
      CHECK ((end - 1) / 512 < live[j].host / 512
             || piece[i].host / 512
                > (live[j].host + live[j].size - 1) / 512);
    for (size_t j = 0; j < i; j++)
      CHECK (end <= piece[j].host
             || piece[i].host >= piece[j].host + piece[j].size);
  }
}

static unsigned
pieces_in (uint64_t cluster)
{
  unsigned n = 0;

  for (size_t i = 0; i < lives; i++)
    n += live[i].host / CLUSTER <= cluster
      && (live[i].host + live[i].size - 1) / CLUSTER >= cluster;
  return n;
}

static void
check_counts (struct refcounts *rc)
{
  LOCK_FOR_SCOPE (&rc->lock);
  for (size_t i = 0; i < lives; i++)
    for (uint64_t c = live[i].host / CLUSTER;
         c <= (live[i].host + live[i].size - 1) / CLUSTER; c++) {
      uint64_t count;

      CHECK (refcounts_get (rc, c, &count) == 0);
      CHECK (count == pieces_in (c));
    }
  CHECK (health_ok (rc->health));
}

static void
take (struct refcounts *rc, struct rng *rng)
{
  size_t n = 1 + rng_below (rng, 6), got;
  struct packed piece[6];

  if (n > PIECES - lives)
    return;
  for (size_t i = 0; i < n; i++)
    piece[i].size = 1 + rng_below (rng, rng_below (rng, 4) ? 200 : CLUSTER - 1);
  CHECK (byte_allocator_alloc (rc, piece, n, &got) == 0);
  CHECK (got == n);
  check_pieces (piece, n);
  memcpy (live + lives, piece, n * sizeof *piece);
  lives += n;
}

static void
give_back (struct refcounts *rc, struct rng *rng)
{
  const bool last = rng_below (rng, 2);
  const size_t n = lives ? 1 + rng_below (rng, lives < 4 ? lives : 4) : 0;
  const size_t at = lives - n - (last || lives == n
                                 ? 0 : rng_below (rng, lives - n));

  byte_allocator_give_back (rc, live + at, n);
  memmove (live + at, live + at + n, (lives - at - n) * sizeof *live);
  lives -= n;
}

static void
run (const struct image_spec *spec)
{
  struct memory_file file[MEMORY_FILES] = { 0 };
  struct files files = { .file = file, .write = spec->write };
  uint8_t *guest = malloc (spec->size);
  struct rng rng = { order + 1 };
  struct image *image;
  struct refcounts *rc;

  make_image (spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  round_number = 0;
  CHECK (files_open (&files, true, 0, &image) == 0);
  memory_in_engine = false;
  CHECK (image_write (image, guest, CLUSTER, 0) == 0);
  rc = &image->top->writer->counts;
  lives = 0;
  for (; round_number < ROUNDS; round_number++) {
    if (rng_below (&rng, 5) < 3)
      take (rc, &rng);
    else
      give_back (rc, &rng);
    check_counts (rc);
  }
  byte_allocator_give_back (rc, live, lives);
  CHECK (health_ok (rc->health));
  image_close (image);
  memory_files_free (file);
  free (guest);
}

int
main (void)
{
  crash_quiet ();
  for (order = 0; order <= 6; order++)
    run (&(struct image_spec) {
           .name = "bytes", .version = 3, .cluster_bits = 10,
           .refcount_order = order, .size = 64 << 10, .map = "D.",
           .holes = true, .write.compress = true });
  return EXIT_SUCCESS;
}
