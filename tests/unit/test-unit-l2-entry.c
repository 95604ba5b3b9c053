/* qcow2ext: what each kind of L2 entry means, and what it becomes.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The expectations are written by hand from the specification of the format,
 * not computed.  Clusters have 64 KiB, subclusters 2 KiB.
 */

#include "build-config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/l2-entry.h"

#define K UINT64_C (1024)
#define CLUSTER (64 * K)
#define FILE_SIZE (64 * CLUSTER)

#define COPIED (UINT64_C (1) << 63)
#define COMPRESSED (UINT64_C (1) << 62)
#define ALL UINT32_MAX
/* A bitmap: subclusters that are allocated, and those that are zero. */
#define BITS(allocated, zero) ((uint64_t) (zero) << 32 | (allocated))
/* With 64 KiB clusters, x = 54: sectors from bit 54, the offset below. */
#define PACKED(sectors, offset)                                         \
  (COMPRESSED | (uint64_t) (sectors) << 54 | (offset))

static const struct geometry v2 = {
  .version = 2, .cluster_bits = 16, .subcluster_bits = 16, .l2_bits = 13,
};
static const struct geometry v3 = {
  .version = 3, .cluster_bits = 16, .subcluster_bits = 16, .l2_bits = 13,
};
static const struct geometry extended = {
  .version = 3, .cluster_bits = 16, .subcluster_bits = 11, .l2_bits = 12,
  .extended_l2 = true,
};
static const struct geometry pair = {
  .version = 3, .cluster_bits = 16, .subcluster_bits = 16, .l2_bits = 13,
  .has_data_file = true,
};
static const struct geometry extended_pair = {
  .version = 3, .cluster_bits = 16, .subcluster_bits = 11, .l2_bits = 12,
  .extended_l2 = true, .has_data_file = true,
};

static unsigned failures, checks;

#define expect(what, n, condition)                                      \
  do {                                                                  \
    checks++;                                                           \
    if (!(condition)) {                                                 \
      failures++;                                                       \
      printf ("FAIL: %s %zu: not %s\n", what, n, #condition);           \
    }                                                                   \
  } while (0)

/* --- what an entry means --- */

#define INVALID(text) { .type = RUN_INVALID, .why = text }

static const struct {
  const struct geometry *g;
  uint64_t entry, bitmap, offset;
  struct run run;               /* of an invalid one, why: a part of the text */
} meanings[] = {
  /* Standard entries.  Version 2 has no zero flag. */
  { &v3, 0, 0, 5 * CLUSTER, { RUN_UNALLOCATED, CLUSTER, .host = 0 } },
  { &v3, 1, 0, 0, { RUN_ZERO, CLUSTER, .host = 0 } },
  { &v3, COPIED | 7 * CLUSTER | 1, 0, 0, { RUN_ZERO, CLUSTER, .host = 0 } },
  { &v2, COPIED | 7 * CLUSTER | 1, 0, 0,
    { RUN_DATA, CLUSTER, .host = 7 * CLUSTER, .copied = true } },
  { &v2, 1, 0, 0, { RUN_UNALLOCATED, CLUSTER, .host = 0 } },
  { &v3, COPIED | 7 * CLUSTER, 0, 3 * CLUSTER + 99,
    { RUN_DATA, CLUSTER - 99, .host = 7 * CLUSTER + 99, .copied = true } },
  { &v3, 7 * CLUSTER, 0, 0,
    { RUN_DATA, CLUSTER, .host = 7 * CLUSTER, .copied = false } },
  { &v3, COPIED | (7 * CLUSTER + 512), 0, 0, INVALID ("not aligned") },
  { &v3, (7 * CLUSTER + 512) | 1, 0, 0, INVALID ("not aligned") },
  { &v3, COPIED | FILE_SIZE, 0, 0, INVALID ("past the end") },
  { &v3, COPIED | (FILE_SIZE - CLUSTER), 0, 0,
    { RUN_DATA, CLUSTER, .host = FILE_SIZE - CLUSTER, .copied = true } },
  /* The copied flag alone is a place only in a data file. */
  { &v3, COPIED, 0, 0, { RUN_UNALLOCATED, CLUSTER, .host = 0 } },

  /* Compressed: from a byte on, to the end of a number of sectors. */
  { &v3, PACKED (0, 5 * CLUSTER), 0, 0,
    { RUN_COMPRESSED, CLUSTER, .host = 5 * CLUSTER, .compressed_size = 512 } },
  { &v3, PACKED (3, 5 * CLUSTER + 100), 0, CLUSTER + 4096,
    { RUN_COMPRESSED, CLUSTER - 4096, .host = 5 * CLUSTER + 100,
      .compressed_size = 4 * 512 - 100 } },
  /* Bit 0 is a part of the offset, not the zero flag. */
  { &v3, PACKED (0, 5 * CLUSTER + 1), 0, 0,
    { RUN_COMPRESSED, CLUSTER, .host = 5 * CLUSTER + 1,
      .compressed_size = 511 } },
  { &extended, PACKED (0, 5 * CLUSTER), 0, 4 * K,
    { RUN_COMPRESSED, 60 * K, .host = 5 * CLUSTER, .compressed_size = 512 } },
  { &v3, PACKED (0, FILE_SIZE), 0, 0, INVALID ("past the end") },
  { &pair, PACKED (0, 5 * CLUSTER), 0, 0, INVALID ("compressed cluster in") },

  /* An external data file: the offset is the guest's, 0 included. */
  { &pair, COPIED, 0, 0, { RUN_DATA, CLUSTER, .host = 0, .copied = true } },
  { &pair, 0, 0, 0, { RUN_UNALLOCATED, CLUSTER, .host = 0 } },
  { &pair, 1, 0, 0, { RUN_ZERO, CLUSTER, .host = 0 } },
  { &pair, COPIED | 1, 0, 0, { RUN_ZERO, CLUSTER, .host = 0 } },
  { &pair, COPIED | 9 * CLUSTER, 0, 9 * CLUSTER + 1,
    { RUN_DATA, CLUSTER - 1, .host = 9 * CLUSTER + 1, .copied = true } },
  { &pair, 9 * CLUSTER, 0, 9 * CLUSTER,
    { RUN_DATA, CLUSTER, .host = 9 * CLUSTER, .copied = true } },
  { &pair, COPIED | 9 * CLUSTER, 0, 8 * CLUSTER, INVALID ("the guest's") },
  { &pair, COPIED, 0, CLUSTER, INVALID ("the guest's") },
  { &pair, COPIED | 1, 0, CLUSTER, INVALID ("the guest's") },
  /* The data file may be larger than the image file. */
  { &pair, COPIED | 999 * CLUSTER, 0, 999 * CLUSTER,
    { RUN_DATA, CLUSTER, .host = 999 * CLUSTER, .copied = true } },

  /* Subclusters.  Bit 0 of an extended entry is no zero flag. */
  { &extended, 0, 0, 0, { RUN_UNALLOCATED, CLUSTER, .host = 0 } },
  { &extended, 1, 0, 0, { RUN_UNALLOCATED, CLUSTER, .host = 0 } },
  { &extended, 0, BITS (0, ALL), 0, { RUN_ZERO, CLUSTER, .host = 0 } },
  { &extended, 0, BITS (0, ALL), 3 * 2 * K,
    { RUN_ZERO, 29 * 2 * K, .host = 0 } },
  { &extended, COPIED | 7 * CLUSTER, BITS (ALL, 0), 0,
    { RUN_DATA, CLUSTER, .host = 7 * CLUSTER, .copied = true } },
  { &extended, COPIED | 7 * CLUSTER, BITS (0x6, 0), 2 * K + 1,
    { RUN_DATA, 4 * K - 1, .host = 7 * CLUSTER + 2 * K + 1, .copied = true } },
  { &extended, COPIED | 7 * CLUSTER, BITS (0x6, 0), 0,
    { RUN_UNALLOCATED, 2 * K, .host = 0 } },
  { &extended, COPIED | 7 * CLUSTER, BITS (0x6, 0), 6 * K,
    { RUN_UNALLOCATED, 29 * 2 * K, .host = 0 } },
  { &extended, COPIED | 7 * CLUSTER, BITS (0x6, 0x18), 6 * K,
    { RUN_ZERO, 4 * K, .host = 0 } },
  { &extended, COPIED | 7 * CLUSTER, BITS (1U << 31, 0), 31 * 2 * K,
    { RUN_DATA, 2 * K, .host = 7 * CLUSTER + 62 * K, .copied = true } },
  { &extended, COPIED | 7 * CLUSTER, BITS (0x6, 0x2), 0, INVALID ("both") },
  { &extended, 0, BITS (0x6, 0), 0, INVALID ("in a cluster that is not") },
  { &extended, COPIED, BITS (0x6, 0), 0,
    INVALID ("in a cluster that is not") },
  { &extended, COPIED | FILE_SIZE, BITS (1, 0), 0, INVALID ("past the end") },
  { &extended_pair, COPIED, BITS (1, 2), 0,
    { RUN_DATA, 2 * K, .host = 0, .copied = true } },
  { &extended_pair, COPIED, BITS (1, 2), 2 * K,
    { RUN_ZERO, 2 * K, .host = 0 } },
  { &extended_pair, COPIED | CLUSTER, BITS (0, 0), 0,
    INVALID ("the guest's") },
};

static void
test_meanings (void)
{
  for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++) {
    const struct run *wanted = &meanings[i].run;
    struct run run = { 0 };

    l2_entry_classify (meanings[i].g, FILE_SIZE, meanings[i].entry,
                       meanings[i].bitmap, meanings[i].offset, &run);
    expect ("meaning", i, run.type == wanted->type);
    if (run.type == RUN_INVALID) {
      expect ("meaning", i, run.error < 0 && run.length > 0);
      expect ("meaning", i,
              wanted->why && strstr (run.why, wanted->why) != NULL);
      continue;
    }
    expect ("meaning", i, run.length == wanted->length);
    expect ("meaning", i, run.host == wanted->host);
    expect ("meaning", i, run.copied == wanted->copied);
    expect ("meaning", i, run.compressed_size == wanted->compressed_size);
  }
}

/* --- what it refers to, and whether that may be written to --- */

static const struct {
  const struct geometry *g;
  uint64_t entry;
  uint64_t offset, length;      /* length 0: refers to nothing */
  bool writable;
} places[] = {
  { &v3, 0, 0, 0, false },
  { &v3, 1, 0, 0, false },
  { &v3, COPIED, 0, 0, false },
  { &v3, COPIED | 7 * CLUSTER, 7 * CLUSTER, CLUSTER, true },
  { &v3, COPIED | 7 * CLUSTER | 1, 7 * CLUSTER, CLUSTER, true },
  { &v3, 7 * CLUSTER, 7 * CLUSTER, CLUSTER, false },
  { &v3, COPIED | FILE_SIZE, FILE_SIZE, CLUSTER, false },
  { &v3, PACKED (3, 5 * CLUSTER + 100), 5 * CLUSTER + 100, 2048 - 100, false },
  { &v3, COPIED | PACKED (0, 5 * CLUSTER), 5 * CLUSTER, 512, false },
  { &extended, COPIED | 7 * CLUSTER, 7 * CLUSTER, CLUSTER, true },
  { &pair, 0, 0, 0, true },
  { &pair, COPIED, 0, 0, true },
  { &pair, COPIED | 7 * CLUSTER, 0, 0, true },
  { &extended_pair, COPIED | 7 * CLUSTER, 0, 0, true },
};

static void
test_places (void)
{
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    uint64_t offset, length;
    const bool refers =
      l2_entry_refers_to (places[i].g, places[i].entry, &offset, &length);

    expect ("place", i, refers == (places[i].length > 0));
    if (refers) {
      expect ("place", i, offset == places[i].offset);
      expect ("place", i, length == places[i].length);
    }
    expect ("place", i,
            l2_entry_writable_in_place (places[i].g, FILE_SIZE,
                                        places[i].entry)
            == places[i].writable);
  }
}

/* --- what it becomes --- */

static void
test_make_data (void)
{
  static const struct {
    const struct geometry *g;
    uint64_t entry, bitmap;
    uint64_t host;
    uint32_t mask;
    uint64_t wanted, wanted_bitmap;
  } cases[] = {
    { &v3, 0, 0, 7 * CLUSTER, ALL, COPIED | 7 * CLUSTER, 0 },
    { &v3, COPIED | 5 * CLUSTER | 1, 0, 7 * CLUSTER, ALL,
      COPIED | 7 * CLUSTER, 0 },
    { &v3, PACKED (3, 5 * CLUSTER), 0, 7 * CLUSTER, ALL,
      COPIED | 7 * CLUSTER, 0 },
    { &pair, 1, 0, 0, ALL, COPIED, 0 },
    { &extended, 0, 0, 7 * CLUSTER, 0x6, COPIED | 7 * CLUSTER, BITS (0x6, 0) },
    { &extended, COPIED | 7 * CLUSTER, BITS (0x1, 0xe), 7 * CLUSTER, 0x6,
      COPIED | 7 * CLUSTER, BITS (0x7, 0x8) },
    { &extended, 0, BITS (0, ALL), 7 * CLUSTER, ALL, COPIED | 7 * CLUSTER,
      BITS (ALL, 0) },
  };

  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint64_t entry = cases[i].entry, bitmap = cases[i].bitmap;

    l2_entry_make_data (cases[i].g, cases[i].host, cases[i].mask, &entry,
                        &bitmap);
    expect ("make data", i, entry == cases[i].wanted);
    expect ("make data", i, bitmap == cases[i].wanted_bitmap);
  }
}

enum { KEEP = 1, COVERED = 2 };

static void
test_make_zero (void)
{
  static const struct {
    const struct geometry *g;
    uint64_t entry, bitmap;
    uint32_t mask;
    unsigned how;               /* KEEP the place; COVERED: a lower layer may
                                   have data */
    bool possible;
    uint64_t wanted, wanted_bitmap;
  } cases[] = {
    /* What reads as zeros without an entry stays without one. */
    { &v3, 0, 0, ALL, KEEP, true, 0, 0 },
    { &v3, 0, 0, ALL, COVERED, true, 1, 0 },
    { &v3, COPIED | 7 * CLUSTER, 0, ALL, KEEP, true,
      COPIED | 7 * CLUSTER | 1, 0 },
    { &v3, COPIED | 7 * CLUSTER, 0, ALL, COVERED, true, 1, 0 },
    { &v3, PACKED (3, 5 * CLUSTER), 0, ALL, 0, true, 1, 0 },
    /* Version 2 can only uncover, which helps where there is nothing. */
    { &v2, COPIED | 7 * CLUSTER, 0, ALL, 0, true, 0, 0 },
    { &v2, COPIED | 7 * CLUSTER, 0, ALL, COVERED, false, 0, 0 },
    /* A data file: the place at offset 0 shows by the copied flag only. */
    { &pair, COPIED, 0, ALL, KEEP, true, COPIED | 1, 0 },
    { &pair, COPIED, 0, ALL, 0, true, 1, 0 },
    { &pair, 0, 0, ALL, KEEP | COVERED, true, 1, 0 },
    /* Subclusters, all or some. */
    { &extended, 0, 0, 0x6, 0, true, 0, 0 },
    { &extended, 0, 0, 0x6, COVERED, true, 0, BITS (0, 0x6) },
    { &extended, COPIED | 7 * CLUSTER, BITS (0xf, 0), 0x6, KEEP, true,
      COPIED | 7 * CLUSTER, BITS (0x9, 0x6) },
    { &extended, COPIED | 7 * CLUSTER, BITS (0xf, 0), ALL, KEEP, true,
      COPIED | 7 * CLUSTER, BITS (0, ALL) },
    { &extended, COPIED | 7 * CLUSTER, BITS (0xf, 0), ALL, 0, true, 0,
      BITS (0, ALL) },
    { &extended, PACKED (3, 5 * CLUSTER), 0, 0x6, 0, false, 0, 0 },
    { &extended, PACKED (3, 5 * CLUSTER), 0, ALL, 0, true, 0, BITS (0, ALL) },
  };

  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint64_t entry = cases[i].entry, bitmap = cases[i].bitmap;
    const bool possible =
      l2_entry_make_zero (cases[i].g, cases[i].mask, cases[i].how & KEEP,
                          !(cases[i].how & COVERED), &entry, &bitmap);

    expect ("make zero", i, possible == cases[i].possible);
    if (possible) {
      expect ("make zero", i, entry == cases[i].wanted);
      expect ("make zero", i, bitmap == cases[i].wanted_bitmap);
    }
  }
}

/* Compressed data may end where the bits for offsets do: the spec's x bits,
 * which are the more the smaller a cluster is.
 */
static void
test_compressed_limit (void)
{
  static const struct {
    unsigned cluster_bits;
    uint64_t limit;
  } limits[] = {
    { 9, UINT64_C (1) << 61 }, { 16, UINT64_C (1) << 54 },
    { 21, UINT64_C (1) << 49 },
  };

  for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
    const struct geometry g = {
      .version = 3, .cluster_bits = limits[i].cluster_bits,
    };
    const uint64_t host = limits[i].limit - 512;
    uint64_t entry, bitmap, offset;
    uint32_t size;

    expect ("limit", i, l2_entry_compressed_limit (&g) == limits[i].limit);
    l2_entry_make_compressed (&g, host, 512, &entry, &bitmap);
    l2_entry_compressed_range (&g, entry, &offset, &size);
    expect ("limit", i, offset == host && size == 512);
  }
}

/* --- geometry --- */

static void
test_geometry (void)
{
  static const struct {
    uint64_t from, to;          /* of the cluster at offset CLUSTER */
    uint32_t wanted;
  } masks[] = {
    { CLUSTER, 2 * CLUSTER, ALL },
    { 0, 3 * CLUSTER, ALL },
    { CLUSTER, CLUSTER + 1, 1 },
    { CLUSTER + 2 * K - 1, CLUSTER + 2 * K + 1, 3 },
    { CLUSTER + 2 * K, CLUSTER + 6 * K, 6 },
    { 2 * CLUSTER - 1, 3 * CLUSTER, 1U << 31 },
  };
  const size_t n = sizeof masks / sizeof masks[0];
  const struct geometry *g = &extended;

  for (size_t i = 0; i < n; i++) {
    expect ("mask", i,
            geometry_subcluster_mask (g, CLUSTER, masks[i].from, masks[i].to)
            == masks[i].wanted);
    expect ("mask", i,
            geometry_subcluster_mask (&v3, CLUSTER, masks[i].from,
                                      masks[i].to) == 1);
  }
  expect ("index", n, geometry_l1_index (g, (4096 * CLUSTER) - 1) == 0);
  expect ("index", n, geometry_l1_index (g, 4096 * CLUSTER) == 1);
  expect ("index", n, geometry_l2_index (g, (4096 * CLUSTER) - 1) == 4095);
  expect ("index", n, geometry_l2_index (g, 4097 * CLUSTER) == 1);
}

int
main (void)
{
  test_meanings ();
  test_places ();
  test_make_data ();
  test_make_zero ();
  test_compressed_limit ();
  test_geometry ();
  printf ("%u checks, %u failures\n", checks, failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
