/* qcow2ext: from guest ranges to what the tables say of them.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * classify() interprets one entry; everything else only joins its answers
 * into runs.  The unit is what an entry can tell apart: a cluster, or with
 * extended L2 a subcluster.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "map/mapping.h"
#include "base/mutant.h"
#include "map/table-cache.h"

static void
invalid (struct run *run, int error, const char *why)
{
  run->type = RUN_INVALID;
  run->error = error;
  run->why = why;
}

/* A standard cluster's place, checked.  Returns NULL, or what is wrong. */
static const char *
check_host (const struct layer *layer, uint64_t host, uint64_t guest)
{
  if (host & (image_cluster_size (layer) - 1))
    return "the cluster is not aligned";
  if (layer->external && host != guest)
    return "the offset in the external data file is not the guest's";
  return NULL;
}

void
mapping_compressed_range (const struct layer *layer, uint64_t entry,
                          uint64_t *host, uint32_t *size)
{
  /* Spec: x = 62 - (cluster_bits - 8): the offset below, the number of
   * additional sectors above.
   */
  const unsigned x = 62 - (layer->cluster_bits - 8);
  const uint64_t sectors = (entry >> x) & ((UINT64_C (1) << (62 - x)) - 1);

  *host = entry & ((UINT64_C (1) << x) - 1);
  *size = (sectors + 1) * QCOW2_SECTOR_SIZE
    - (*host & (QCOW2_SECTOR_SIZE - 1));
}

static void
classify_compressed (const struct layer *layer, uint64_t entry,
                     struct run *run)
{
  uint64_t host;
  uint32_t size;

  mapping_compressed_range (layer, entry, &host, &size);
  if (layer->external) {
    invalid (run, -EIO, "compressed cluster in an image with an external "
             "data file");
    return;
  }
  if (host >= image_file_size (layer)) {
    invalid (run, -EIO, "the compressed data lies past the end of the file");
    return;
  }
  run->type = RUN_COMPRESSED;
  run->host = host;
  run->compressed_size = size;
}

/* Interprets the subclusters from number sub of a standard cluster.  Sets
 * the type and returns how many subclusters from there share it.
 */
static unsigned
classify_subclusters (uint64_t bitmap, bool allocated, unsigned sub,
                      struct run *run)
{
  const uint32_t alloc = bitmap, zero = bitmap >> 32;
  uint32_t same;

  if (alloc & zero) {
    invalid (run, -EIO, "a subcluster is both allocated and zero");
    return QCOW2_SUBCLUSTERS - sub;
  }
  if (alloc && !allocated) {
    invalid (run, -EIO, "a subcluster is allocated in a cluster that is "
             "not");
    return QCOW2_SUBCLUSTERS - sub;
  }

  if ((alloc >> sub) & 1) {
    run->type = RUN_DATA;
    same = alloc >> sub;
  }
  else if ((zero >> sub) & 1) {
    run->type = RUN_ZERO;
    same = zero >> sub;
  }
  else {
    run->type = RUN_UNALLOCATED;
    same = ~(alloc | zero) >> sub;
  }
  /* The shifts brought zeros in, so this stops at the last subcluster. */
  return ~same ? __builtin_ctz (~same) : QCOW2_SUBCLUSTERS;
}

/* Interprets the entry of the unit that holds guest offset.  Sets all of
 * *run but that the run begins at the unit's, not at the offset's start.
 */
static void
classify (const struct layer *layer, uint64_t entry, uint64_t bitmap,
          uint64_t offset, struct run *run)
{
  const uint64_t cluster = offset & -image_cluster_size (layer);
  const unsigned sub = (offset - cluster) >> layer->unit_bits;
  const uint64_t host = entry & QCOW2_L2_OFFSET;
  /* Offset 0 is a place only in an external data file, where the flag tells
   * it from "no place".
   */
  const bool allocated =
    host != 0 || (layer->external && (entry & QCOW2_COPIED));
  const char *why;
  unsigned units = 1;

  run->length = image_cluster_size (layer);
  if (entry & QCOW2_L2_COMPRESSED) {
    classify_compressed (layer, entry, run);
    return;
  }

  if (layer->extended)
    units = classify_subclusters (bitmap, allocated, sub, run);
  else if ((entry & QCOW2_L2_ZERO) && layer->header.version >= 3)
    run->type = RUN_ZERO;
  else
    run->type = allocated ? RUN_DATA : RUN_UNALLOCATED;

  if (allocated && (why = check_host (layer, host, cluster)) != NULL) {
    invalid (run, -EIO, why);
    return;
  }
  run->length = (uint64_t) units << layer->unit_bits;
  if (run->type == RUN_DATA) {
    run->copied = layer->external || (entry & QCOW2_COPIED);
    if (!layer->external
        && (MUTANT (need_whole_cluster) ? host + run->length : host)
           >= image_file_size (layer))
      invalid (run, -EIO, "the cluster lies past the end of the file");
    else
      run->host = host + ((uint64_t) sub << layer->unit_bits);
  }
}

/* Does b, which starts where a ends, say the same? */
static bool
continues (const struct run *a, const struct run *b)
{
  switch (a->type) {
  case RUN_UNALLOCATED:
  case RUN_ZERO:
    return b->type == a->type;
  case RUN_DATA:
    return b->type == a->type && b->host == a->host + a->length
      && b->copied == a->copied;
  default:
    return false;
  }
}

static uint32_t
l2_index (const struct layer *layer, uint64_t offset)
{
  return (offset >> layer->cluster_bits)
    & ((UINT32_C (1) << layer->l2_bits) - 1);
}

/* Looks up one piece of a run, from a table that is in memory.  Sets
 * run->length to what is left of the piece at offset.
 */
static void
lookup_entry (const struct layer *layer, const struct l2_table *t,
              uint64_t offset, struct run *run)
{
  const uint32_t index = l2_index (layer, offset);
  uint64_t entry, bitmap, skip, unit;

  entry = l2_table_get (t, index, &bitmap);
  classify (layer, entry, bitmap, offset, run);

  /* From the start of the piece to the offset. */
  if (run->length == image_cluster_size (layer))
    unit = image_cluster_size (layer);
  else
    unit = UINT64_C (1) << layer->unit_bits;
  skip = offset & (unit - 1);
  run->length -= skip;
  if (run->type == RUN_DATA)
    run->host += skip;
}

/* As long as the piece that follows says the same, the run grows, up to max
 * and to the end of what the table describes.
 */
static void
lookup_table (const struct layer *layer, const struct l2_table *t,
              uint64_t offset, uint64_t max, struct run *run)
{
  lookup_entry (layer, t, offset, run);
  if (t->compact && run->length < max) {
    /* The piece is the rest of a cluster; max ends within the table. */
    const uint32_t clusters =
      1 + ((max - run->length + image_cluster_size (layer) - 1)
           >> layer->cluster_bits);
    const uint32_t same = l2_table_same (t, l2_index (layer, offset),
                                         clusters);

    run->length += (uint64_t) (same - 1) << layer->cluster_bits;
    if (run->length < max)
      return;
  }
  while (run->length < max) {
    struct run next = { 0 };

    lookup_entry (layer, t, offset + run->length, &next);
    if (!continues (run, &next))
      return;
    run->length += next.length;
  }
  run->length = max;
}

/* Like mapping_lookup, but never looks further than one L1 entry. */
static void
lookup_l1 (struct layer *layer, uint64_t offset, uint64_t max,
           struct run *run)
{
  const unsigned coverage = layer->l2_bits + layer->cluster_bits;
  const uint32_t l1_index = offset >> coverage;
  const uint64_t left =
    (UINT64_C (1) << coverage) - (offset & ((UINT64_C (1) << coverage) - 1));
  const char *why;
  int r;

  memset (run, 0, sizeof *run);
  if (max > left)
    max = left;

  for (;;) {
    pthread_mutex_t *reader = brlock_read (table_cache_lock (layer->tables));
    struct l2_table *t = layer->l2[l1_index];

    if (t) {
      if (!atomic_load_explicit (&t->used, memory_order_relaxed))
        atomic_store_explicit (&t->used, true, memory_order_relaxed);
      lookup_table (layer, t, offset, max, run);
    }
    pthread_mutex_unlock (reader);
    if (t)
      return;

    if (image_l2_offset (layer, l1_index) == 0) {
      run->type = RUN_UNALLOCATED;
      run->length = max;
      return;
    }
    r = table_cache_load (layer, l1_index, &why);
    if (r < 0) {
      invalid (run, r, why);
      run->length = max;
      return;
    }
  }
}

void
mapping_lookup (struct layer *layer, uint64_t offset, uint64_t max,
                struct run *run)
{
  if (layer->format == IMAGE_RAW) {
    *run = (struct run) { .type = RUN_DATA, .length = max, .host = offset };
    return;
  }

  lookup_l1 (layer, offset, max, run);

  /* Go on only where the end of a table cut the run. */
  while (run->length < max
         && ((offset + run->length)
             & ((UINT64_C (1) << (layer->l2_bits + layer->cluster_bits)) - 1))
            == 0) {
    struct run next;

    lookup_l1 (layer, offset + run->length, max - run->length, &next);
    if (!continues (run, &next))
      break;
    run->length += next.length;
  }
}

int
mapping_get_entry (struct layer *layer, uint64_t offset,
                   struct mapping_entry *e)
{
  const uint32_t l1_index = offset >> (layer->l2_bits + layer->cluster_bits);
  const uint32_t index = l2_index (layer, offset);
  const uint64_t unit = offset & -(UINT64_C (1) << layer->unit_bits);
  const char *why;
  int r;

  memset (e, 0, sizeof *e);
  for (;;) {
    pthread_mutex_t *reader = brlock_read (table_cache_lock (layer->tables));
    struct l2_table *t = layer->l2[l1_index];

    if (t)
      e->entry = l2_table_get (t, index, &e->bitmap);
    pthread_mutex_unlock (reader);
    if (t || image_l2_offset (layer, l1_index) == 0)
      break;

    r = table_cache_load (layer, l1_index, &why);
    if (r < 0) {
      invalid (&e->run, r, why);
      return mapping_report (layer, offset, &e->run);
    }
  }

  classify (layer, e->entry, e->bitmap, unit, &e->run);
  if (e->run.type == RUN_INVALID)
    return mapping_report (layer, offset, &e->run);
  return 0;
}

int
mapping_report (struct layer *layer, uint64_t offset, const struct run *run)
{
  report_limited (&layer->limit,
                  "%s: guest offset 0x%" PRIx64 " cannot be read: %s; "
                  "see what qemu-img check says of the image",
                  layer->file->name, offset,
                  run->why ? run->why : strerror (-run->error));
  return run->error;
}
