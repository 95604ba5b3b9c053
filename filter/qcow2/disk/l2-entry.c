/* qcow2ext: what an L2 entry means, and what it becomes.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>

#include "disk/l2-entry.h"

static void
invalid (struct run *run, const char *why)
{
  run->type = RUN_INVALID;
  run->error = -EIO;
  run->why = why;
}

/* --- what it means --- */

/* A standard cluster's place, checked.  Returns NULL, or what is wrong. */
static const char *
check_host (const struct geometry *g, uint64_t host, uint64_t guest)
{
  if (host & (geometry_cluster_size (g) - 1))
    return "the cluster is not aligned";
  if (g->has_data_file && host != guest)
    return "the offset in the external data file is not the guest's";
  return NULL;
}

/* Spec: x = 62 - (cluster_bits - 8): the offset below, the number of additional
 * sectors above.
 */
static unsigned
compressed_offset_bits (const struct geometry *g)
{
  return 62 - (g->cluster_bits - 8);
}

void
l2_entry_compressed_range (const struct geometry *g, uint64_t entry,
                           uint64_t *offset, uint32_t *size)
{
  const unsigned x = compressed_offset_bits (g);
  const uint64_t sectors = (entry >> x) & ((UINT64_C (1) << (62 - x)) - 1);

  *offset = entry & ((UINT64_C (1) << x) - 1);
  *size = (sectors + 1) * QCOW2_SECTOR_SIZE
    - (*offset & (QCOW2_SECTOR_SIZE - 1));
}

static void
classify_compressed (const struct geometry *g, uint64_t file_size,
                     uint64_t entry, struct run *run)
{
  uint64_t host;
  uint32_t size;

  l2_entry_compressed_range (g, entry, &host, &size);
  if (g->has_data_file) {
    invalid (run, "compressed cluster in an image with an external data file");
    return;
  }
  if (host >= file_size) {
    invalid (run, "the compressed data lies past the end of the file");
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
    invalid (run, "a subcluster is both allocated and zero");
    return QCOW2_SUBCLUSTERS - sub;
  }
  if (alloc && !allocated) {
    invalid (run, "a subcluster is allocated in a cluster that is not");
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

void
l2_entry_classify (const struct geometry *g, uint64_t file_size,
                   uint64_t entry, uint64_t bitmap, uint64_t offset,
                   struct run *run)
{
  const uint64_t within = offset & (geometry_cluster_size (g) - 1);
  const uint64_t host = entry & QCOW2_L2_OFFSET;
  const bool allocated = l2_entry_is_allocated (g, entry);
  const char *why;

  run->length = geometry_cluster_size (g) - within;
  if (entry & QCOW2_L2_COMPRESSED) {
    classify_compressed (g, file_size, entry, run);
    return;
  }

  if (g->extended_l2) {
    const unsigned sub = within >> g->subcluster_bits;
    const unsigned n = classify_subclusters (bitmap, allocated, sub, run);

    run->length = ((uint64_t) (sub + n) << g->subcluster_bits) - within;
  }
  else if ((entry & QCOW2_L2_ZERO) && g->version >= 3)
    run->type = RUN_ZERO;
  else
    run->type = allocated ? RUN_DATA : RUN_UNALLOCATED;

  if (allocated && (why = check_host (g, host, offset - within)) != NULL) {
    invalid (run, why);
    return;
  }
  if (run->type == RUN_DATA) {
    run->host = host + within;
    run->copied = g->has_data_file || (entry & QCOW2_COPIED);
    if (!g->has_data_file && host >= file_size)
      invalid (run, "the cluster lies past the end of the file");
  }
}

bool
l2_entry_refers_to (const struct geometry *g, uint64_t entry,
                    uint64_t *offset, uint64_t *length)
{
  if (entry & QCOW2_L2_COMPRESSED) {
    uint32_t size;

    l2_entry_compressed_range (g, entry, offset, &size);
    *length = size;
    return true;
  }
  *offset = entry & QCOW2_L2_OFFSET;
  *length = geometry_cluster_size (g);
  return *offset != 0 && !g->has_data_file;
}

bool
l2_entry_writable_in_place (const struct geometry *g, uint64_t file_size,
                            uint64_t entry)
{
  const uint64_t host = entry & QCOW2_L2_OFFSET;

  return g->has_data_file
    || (!(entry & QCOW2_L2_COMPRESSED) && (entry & QCOW2_COPIED)
        && host && host < file_size);
}

/* --- what it becomes --- */

void
l2_entry_make_data (const struct geometry *g, uint64_t host, uint32_t mask,
                    uint64_t *entry, uint64_t *bitmap)
{
  *entry = host | QCOW2_COPIED;
  if (g->extended_l2) {
    *bitmap |= mask;
    *bitmap &= ~((uint64_t) mask << 32);
  }
}

void
l2_entry_make_compressed (const struct geometry *g, uint64_t host,
                          uint32_t size, uint64_t *entry, uint64_t *bitmap)
{
  const uint64_t sectors = (host + size - 1) / QCOW2_SECTOR_SIZE
    - host / QCOW2_SECTOR_SIZE;

  *entry = QCOW2_L2_COMPRESSED | sectors << compressed_offset_bits (g) | host;
  *bitmap = 0;
}

uint64_t
l2_entry_compressed_limit (const struct geometry *g)
{
  return UINT64_C (1) << compressed_offset_bits (g);
}

bool
l2_entry_make_zero (const struct geometry *g, uint32_t mask, bool keep_place,
                    bool nothing_below, uint64_t *entry, uint64_t *bitmap)
{
  const uint64_t place =
    keep_place ? *entry & (QCOW2_L2_OFFSET | QCOW2_COPIED) : 0;

  /* Where neither an entry nor a lower layer has anything, zeros are read. */
  if (*entry == 0 && (uint32_t) *bitmap == 0 && nothing_below)
    return true;
  if (g->extended_l2) {
    if (mask != UINT32_MAX) {
      if (*entry & QCOW2_L2_COMPRESSED)
        return false;
      *bitmap = (*bitmap & ~(uint64_t) mask) | (uint64_t) mask << 32;
      return true;
    }
    *bitmap = (uint64_t) UINT32_MAX << 32;
    *entry = place;
    return true;
  }
  if (g->version < 3) {
    *entry = 0;
    return nothing_below;
  }
  *entry = QCOW2_L2_ZERO | place;
  return true;
}
