/* qcow2ext: caches of images with small clusters, while they are written to.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * There the books about a table are larger than the table, and there are many
 * of all that is counted in clusters.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "crash-workloads.h"
#include "data/decoded-cache.h"
#include "data/encoder.h"
#include "image/chain.h"
#include "map/l2-cache.h"

#define CLUSTER_BITS 9
#define CLUSTER (UINT64_C (1) << CLUSTER_BITS)
#define REACH (CLUSTER / 8 * CLUSTER) /* of an L2 table */

/* --- tables --- */

/* The most that was written to the image between two flushes, from an operation
 * on.
 */
static uint64_t
most_at_once (const struct memory_log *log, size_t from)
{
  uint64_t sum = 0, most = 0;

  for (size_t i = from; i < log->count; i++) {
    const struct memory_op *op = &log->op[i];

    if (op->file != MEMORY_IMAGE)
      continue;
    if (op->kind == MEMORY_FLUSH)
      sum = 0;
    else if (op->kind == MEMORY_WRITE)
      sum += op->length;
    most = sum > most ? sum : most;
  }
  return most;
}

/* Each write needs a new table.  They are committed before they fill the cache,
 * which goes beyond its limit only by what the clock still has to find.  On disk
 * they are larger: a commit does not unpack all of them at once.
 */
static void
test_tables (bool external)
{
  const uint64_t tables = 1024;
  const struct image_spec spec = {
    .name = "tables", .version = 3, .cluster_bits = CLUSTER_BITS,
    .refcount_order = 4, .size = tables * REACH, .map = ".",
    .external = external,
  };
  const size_t limit = 32 << 10;
  struct memory_file file[MEMORY_FILES] = { 0 };
  struct memory_log log;
  struct files files = { .file = file, .log = &log };
  uint8_t *guest = malloc (spec.size);
  uint64_t at_once;
  size_t from, most = 0, bytes, max;
  struct image *image;

  memory_log_init (&log);
  make_image (&spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  CHECK (files_open (&files, true, limit, &image) == 0);
  memory_in_engine = false;
  for (uint64_t i = 0; i < tables; i++) {
    CHECK (image_write (image, guest, CLUSTER, i * REACH) == 0);
    l2_cache_usage (image->tables, &bytes, &max);
    most = bytes > most ? bytes : most;
  }
  printf ("%s: at most %zu bytes of tables, limit %zu\n",
          external ? "data file" : "own data", most, max);
  CHECK (image_flush (image) == 0);
  from = log.count;
  for (uint64_t i = 0; i < tables; i++)
    CHECK (image_write (image, guest, CLUSTER, i * REACH + CLUSTER) == 0);
  CHECK (image_flush (image) == 0);
  at_once = most_at_once (&log, from);
  printf ("    at most %" PRIu64 " bytes written by a round of a commit\n",
          at_once);
  CHECK (max == limit);
  CHECK (most <= limit + limit / 8);
  if (external)
    CHECK (at_once <= limit);
  image_close (image);
  memory_log_clear (&log);
  memory_files_free (file);
  free (guest);
}

/* --- decoded clusters --- */

static uint8_t packed[CLUSTER];
static ssize_t packed_size;
static uint64_t reads;

/* The same compressed cluster, wherever it is read. */
static int
packed_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  (void) s, (void) offset;
  reads++;
  memcpy (buf, packed, count);
  return 0;
}

static const struct store_ops ops = { .pread = packed_pread };
static struct store store = { .ops = &ops, .name = (char *) "packed" };

/* Whether a piece of the compressed cluster at host has to be read. */
static bool
is_read (struct layer *layer, uint64_t host)
{
  const struct run run = {
    .type = RUN_COMPRESSED, .length = 1, .host = host,
    .compressed_size = packed_size,
  };
  const struct compressed_input none = { NULL, 0 };
  const uint64_t before = reads;
  uint8_t byte;
  bool ahead;

  CHECK (decoded_cache_read (layer, 0, &run, none, &byte, &ahead) == 0);
  CHECK (byte == 7);
  return reads != before;
}

/* A store without a number for its content shares nothing with one that has
 * any.
 */
static void
test_content (void)
{
  static struct store unnumbered = { .name = (char *) "unnumbered" };
  struct store numbered = { .name = (char *) "numbered" };

  for (unsigned i = 0; i < 10; i++) {
    const uint64_t content = decoded_cache_content (&unnumbered);

    CHECK (content != decoded_cache_content (&unnumbered));
    for (numbered.content = 1; numbered.content < 100; numbered.content++)
      CHECK (content != decoded_cache_content (&numbered));
  }
}

static double
cpu_seconds (void)
{
  struct timespec t;

  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

/* A hash that would find clusters together must not make a range that is let
 * go of cost what the cache holds.
 */
static void
test_decoded (void)
{
  const uint64_t cached = 8192, ranges = 200000, far = UINT64_C (1) << 40;
  static struct layer layer, other;
  uint8_t cluster[CLUSTER];
  struct encoder *e = encoder_new (0, CLUSTER);
  double start;

  memset (cluster, 7, sizeof cluster);
  CHECK (e != NULL && encoder_room (e) <= sizeof packed);
  packed_size = encoder_run (e, cluster, packed);
  CHECK (packed_size > 0 && packed_size < 100);
  encoder_free (e);
  layer.file = &store;
  layer.geo.cluster_bits = CLUSTER_BITS;
  atomic_init (&layer.file_size, 2 * far);
  layer.decoded = decoded_cache_new (4 * cached * CLUSTER);
  layer.content = decoded_cache_content (&store);
  other = layer;
  other.content = decoded_cache_content (&store);

  /* Two in each host cluster. */
  for (uint64_t i = 0; i < cached; i++) {
    CHECK (is_read (&layer, i * CLUSTER));
    CHECK (is_read (&layer, i * CLUSTER + 100));
  }
  CHECK (is_read (&other, 5 * CLUSTER));
  CHECK (!is_read (&layer, 5 * CLUSTER));

  start = cpu_seconds ();
  for (uint64_t i = 0; i < ranges; i++)
    decoded_cache_drop_range (layer.decoded, &layer, far + i * CLUSTER,
                              CLUSTER);
  printf ("%" PRIu64 " ranges let go of, %" PRIu64 " clusters cached: %.1f "
          "seconds of CPU time\n", ranges, 2 * cached, cpu_seconds () - start);
  CHECK (cpu_seconds () - start < 5);
  CHECK (!is_read (&layer, 5 * CLUSTER));

  /* One piece, a whole cluster, many clusters; nothing else. */
  decoded_cache_drop_range (layer.decoded, &layer, 5 * CLUSTER + 100,
                            packed_size);
  CHECK (!is_read (&layer, 5 * CLUSTER));
  CHECK (is_read (&layer, 5 * CLUSTER + 100));
  decoded_cache_drop_range (layer.decoded, &layer, 5 * CLUSTER, CLUSTER);
  CHECK (!is_read (&other, 5 * CLUSTER));
  CHECK (is_read (&layer, 5 * CLUSTER));
  CHECK (is_read (&layer, 5 * CLUSTER + 100));
  CHECK (!is_read (&layer, 4 * CLUSTER + 100));
  CHECK (!is_read (&layer, 6 * CLUSTER));
  decoded_cache_drop_range (layer.decoded, &layer, 6 * CLUSTER + 100,
                            3 * CLUSTER);
  CHECK (!is_read (&layer, 6 * CLUSTER));
  CHECK (is_read (&layer, 6 * CLUSTER + 100));
  CHECK (is_read (&layer, 8 * CLUSTER));
  CHECK (is_read (&layer, 9 * CLUSTER));
  CHECK (!is_read (&layer, 9 * CLUSTER + 100));
  decoded_cache_drop_range (layer.decoded, &layer, 0, far);
  for (uint64_t i = 0; i < 100; i++)
    CHECK (is_read (&layer, i * CLUSTER));
  CHECK (!is_read (&other, 5 * CLUSTER));

  /* Closing one. */
  CHECK (!is_read (&layer, 5 * CLUSTER));
  decoded_cache_drop_layer (layer.decoded, &other);
  CHECK (is_read (&other, 5 * CLUSTER));
  CHECK (!is_read (&layer, 5 * CLUSTER));

  /* Layers of the same file, one of them closed. */
  store.content = 1;
  layer.content = decoded_cache_content (&store);
  other.content = decoded_cache_content (&store);
  CHECK (is_read (&layer, 5 * CLUSTER));
  CHECK (!is_read (&other, 5 * CLUSTER));
  decoded_cache_drop_layer (layer.decoded, &layer);
  CHECK (!is_read (&other, 5 * CLUSTER));
  store.content = 2;
  other.content = decoded_cache_content (&store);
  CHECK (is_read (&other, 5 * CLUSTER));
  decoded_cache_unref (layer.decoded);
}

int
main (void)
{
  crash_quiet ();
  test_tables (true);
  test_tables (false);
  test_content ();
  test_decoded ();
  return EXIT_SUCCESS;
}
