/* qcow2ext: images and workloads for the crash tests.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash-workloads.h"
#include "map/l2-table.h"

/* Clusters of 512 bytes make tables small and states many.  With refcounts of
 * 64 bits, a block of them counts 64 clusters, and the table's first cluster
 * reaches over 2 MiB.
 */
const struct image_spec crash_specs[] = {
  { .name = "empty", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 96 << 10, .map = "." },
  { .name = "mixed", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 64 << 10, .map = "D.ZAD", .holes = true },
  { .name = "4k", .version = 3, .cluster_bits = 12, .refcount_order = 3,
    .size = 200 << 10, .map = "D..AZ", .holes = true, .lazy = true },
  { .name = "64k", .version = 3, .cluster_bits = 16, .refcount_order = 4,
    .size = (320 << 10) + 512, .map = "D." },
  { .name = "v2", .version = 2, .cluster_bits = 9, .refcount_order = 4,
    .size = 64 << 10, .map = "D.D..", .holes = true },
  { .name = "v2-backing", .version = 2, .cluster_bits = 10,
    .refcount_order = 4, .size = 64 << 10, .map = "D..", .backing = true },
  { .name = "backing", .version = 3, .cluster_bits = 10, .refcount_order = 4,
    .size = 80 << 10, .map = "..DZA.", .backing = true, .holes = true },
  { .name = "snapshot", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 96 << 10, .map = "DDZ.A", .snapshot = true, .holes = true },
  { .name = "compressed", .version = 3, .cluster_bits = 12,
    .refcount_order = 4, .size = 128 << 10, .map = "CCD.C", .holes = true },
  { .name = "compressed-snapshot", .version = 3, .cluster_bits = 10,
    .refcount_order = 5, .size = 64 << 10, .map = "CDC.", .snapshot = true },
  { .name = "blocks", .version = 3, .cluster_bits = 9, .refcount_order = 6,
    .size = 64 << 10, .map = "...D", .lazy = true },
  { .name = "reftable", .version = 3, .cluster_bits = 9, .refcount_order = 6,
    .size = 64 << 10, .map = "...D", .leaked = 4070 },
  { .name = "1-bit", .version = 3, .cluster_bits = 9, .refcount_order = 0,
    .size = 64 << 10, .map = "D.Z", .holes = true },
  { .name = "extended", .version = 3, .cluster_bits = 14, .refcount_order = 4,
    .size = (128 << 10) + 1024, .map = "D.SZA", .extended = true },
  { .name = "extended-backing", .version = 3, .cluster_bits = 14,
    .refcount_order = 4, .size = 96 << 10, .map = ".SD", .extended = true,
    .backing = true },
  { .name = "extended-snapshot", .version = 3, .cluster_bits = 14,
    .refcount_order = 4, .size = 96 << 10, .map = "SD.", .extended = true,
    .snapshot = true },
  { .name = "pair", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 96 << 10, .map = "D.ZA", .external = true, .stale = true },
  { .name = "pair-empty", .version = 3, .cluster_bits = 12,
    .refcount_order = 4, .size = 100 << 10, .map = ".", .external = true,
    .short_data = true },
  { .name = "pair-backing", .version = 3, .cluster_bits = 10,
    .refcount_order = 4, .size = 64 << 10, .map = "..DZ", .external = true,
    .backing = true, .stale = true },
  { .name = "pair-extended", .version = 3, .cluster_bits = 14,
    .refcount_order = 4, .size = 96 << 10, .map = "S.DZ", .external = true,
    .extended = true, .stale = true },
  { .name = "raw-empty", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 96 << 10, .map = ".", .external = true, .raw = true,
    .short_data = true },
  { .name = "raw-full", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 48 << 10, .map = "D", .external = true, .raw = true },
  { .name = "raw-stale", .version = 3, .cluster_bits = 10,
    .refcount_order = 4, .size = (64 << 10) - 512, .map = "D.AZ",
    .external = true, .raw = true, .stale = true },
  { .name = "raw-extended", .version = 3, .cluster_bits = 14,
    .refcount_order = 4, .size = 96 << 10, .map = "DS.", .external = true,
    .raw = true, .extended = true, .stale = true },
  { .name = "raw-no-discard", .version = 3, .cluster_bits = 9,
    .refcount_order = 4, .size = 48 << 10, .map = "D.", .external = true,
    .raw = true, .no_discard = true },
  { .name = "2-bit", .version = 3, .cluster_bits = 9, .refcount_order = 1,
    .size = 96 << 10, .map = "D.Z", .holes = true, .snapshot = true },
  { .name = "4-bit", .version = 3, .cluster_bits = 10, .refcount_order = 2,
    .size = 64 << 10, .map = "D.C..Z", .holes = true },
  { .name = "wide-l1", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = (2 << 20) + (96 << 10), .map = "." },
  { .name = "dirty", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 64 << 10, .map = "D.ZA", .lazy = true, .dirty = true },
  { .name = "pair-dirty", .version = 3, .cluster_bits = 9,
    .refcount_order = 4, .size = 64 << 10, .map = "D.Z", .lazy = true,
    .dirty = true, .external = true },
  { .name = "device", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 64 << 10, .map = "D.Z.", .device = true, .holes = true },
  { .name = "bitmaps", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 64 << 10, .map = "D.ZA", .bitmaps = true, .holes = true },
  { .name = "bitmaps-pair", .version = 3, .cluster_bits = 12,
    .refcount_order = 4, .size = 96 << 10, .map = "D.Z", .external = true,
    .bitmaps = true, .stale = true },
  { .name = "bitmaps-raw", .version = 3, .cluster_bits = 9,
    .refcount_order = 4, .size = 64 << 10, .map = "D.", .external = true,
    .raw = true, .bitmaps = true },
  { .name = "encrypted", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 64 << 10, .map = "D.ZAD", .encrypted = true, .holes = true },
  { .name = "encrypted-compressed", .version = 3, .cluster_bits = 10,
    .refcount_order = 5, .size = 64 << 10, .map = "CDC.", .encrypted = true,
    .snapshot = true },
  { .name = "encrypted-extended", .version = 3, .cluster_bits = 14,
    .refcount_order = 4, .size = 96 << 10, .map = ".SD", .encrypted = true,
    .extended = true, .backing = true },
  { .name = "encrypted-pair", .version = 3, .cluster_bits = 12,
    .refcount_order = 4, .size = (100 << 10) + 512, .map = "D.Z",
    .encrypted = true, .external = true, .short_data = true,
    .bitmaps = true },
  { .name = "encrypted-raw", .version = 3, .cluster_bits = 10,
    .refcount_order = 4, .size = (64 << 10) - 512, .map = "D.AZ",
    .encrypted = true, .external = true, .raw = true, .stale = true },
  { .name = "compress", .version = 3, .cluster_bits = 9, .refcount_order = 4,
    .size = 64 << 10, .map = "D.ZA", .holes = true,
    .write.compress = true, .write.detect_zeroes = DETECT_UNMAP },
  { .name = "compress-compressed", .version = 3, .cluster_bits = 12,
    .refcount_order = 3, .size = 128 << 10, .map = "CCD.C", .holes = true,
    .write.compress = true },
  { .name = "compress-snapshot", .version = 3, .cluster_bits = 10,
    .refcount_order = 5, .size = 64 << 10, .map = "CDC.", .snapshot = true,
    .write.compress = true },
  { .name = "compress-1-bit", .version = 3, .cluster_bits = 10,
    .refcount_order = 0, .size = 64 << 10, .map = "D.Z", .holes = true,
    .write.compress = true },
  { .name = "compress-2-bit", .version = 3, .cluster_bits = 11,
    .refcount_order = 1, .size = 96 << 10, .map = ".", .holes = true,
    .write.compress = true },
  { .name = "compress-v2", .version = 2, .cluster_bits = 10,
    .refcount_order = 4, .size = 64 << 10, .map = "D..", .backing = true,
    .write.compress = true },
  { .name = "compress-extended", .version = 3, .cluster_bits = 14,
    .refcount_order = 4, .size = (128 << 10) + 1024, .map = "D.SZA",
    .extended = true, .write.compress = true },
  { .name = "compress-blocks", .version = 3, .cluster_bits = 9,
    .refcount_order = 6, .size = 64 << 10, .map = ".", .lazy = true,
    .write.compress = true },
  { .name = "compress-device", .version = 3, .cluster_bits = 10,
    .refcount_order = 4, .size = 64 << 10, .map = "D.Z.", .device = true,
    .holes = true, .bitmaps = true, .write.compress = true },
  { .name = "zeroes", .version = 3, .cluster_bits = 10, .refcount_order = 4,
    .size = 80 << 10, .map = "..DZA.", .backing = true, .holes = true,
    .write.detect_zeroes = DETECT_ON },
  { .name = "zeroes-extended", .version = 3, .cluster_bits = 14,
    .refcount_order = 4, .size = 96 << 10, .map = "SD.", .extended = true,
    .snapshot = true, .write.detect_zeroes = DETECT_UNMAP },
  { .name = "zeroes-raw", .version = 3, .cluster_bits = 9,
    .refcount_order = 4, .size = 64 << 10, .map = "D.", .external = true,
    .raw = true, .bitmaps = true, .write.detect_zeroes = DETECT_UNMAP },
  { .name = NULL }
};

const struct image_spec *
crash_spec (const char *name)
{
  for (const struct image_spec *s = crash_specs; s->name; s++)
    if (strcmp (s->name, name) == 0)
      return s;
  fprintf (stderr, "there is no image \"%s\"\n", name);
  exit (EXIT_FAILURE);
}

/* --- workloads that lead to one place each --- */

struct builder {
  struct workload *workload;
  const struct image_spec *spec;
  uint64_t cluster;             /* bytes */
};

static struct step *
add (struct builder *b, enum request_kind kind, uint64_t offset,
     uint64_t length)
{
  struct workload *w = b->workload;
  struct step *s;

  w->step = realloc (w->step, (w->steps + 1) * sizeof *w->step);
  if (w->step == NULL)
    abort ();
  s = &w->step[w->steps++];
  memset (s, 0, sizeof *s);
  s->request = (struct request) {
    .kind = kind, .offset = offset, .length = length,
    .flags = kind == ZERO ? IMAGE_ZERO_UNMAP : 0,
  };
  return s;
}

static void
flush (struct builder *b)
{
  add (b, FLUSH, 0, 0);
}

/* Pauses the step at the nth operation of a kind, on any file. */
static void
pause_at (struct step *s, int kind, unsigned nth, bool after, bool patient)
{
  s->pause.kind = kind;
  s->pause.nth = nth;
  s->pause.file = -1;
  s->pause.after = after;
  s->pause.patient = patient;
}

static void
during (struct step *s, enum request_kind kind, uint64_t offset,
        uint64_t length)
{
  s->during[s->n_during++] = (struct request) {
    .kind = kind, .offset = offset, .length = length,
    .flags = kind == ZERO ? IMAGE_ZERO_UNMAP : 0,
  };
}

/* Others change everything they can at each step of a commit. */
static bool
in_a_commit (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;
  struct step *s;

  if (variant >= 2 * 8)
    return false;
  add (b, WRITE, 0, c);
  add (b, WRITE, 5 * c, 2 * c);
  flush (b);
  add (b, WRITE, c, MEMORY_SECTOR);
  add (b, TRIM, 5 * c, c);
  s = add (b, FLUSH, 0, 0);
  if (variant < 8)
    pause_at (s, MEMORY_FLUSH, 1 + variant / 2, variant % 2, true);
  else
    pause_at (s, MEMORY_WRITE, 1 + variant / 2 % 4, variant % 2, true);
  during (s, WRITE, 2 * c, c);
  during (s, WRITE, 7 * c, MEMORY_SECTOR);
  during (s, ZERO, 6 * c, c);
  during (s, WRITE, c + (c > MEMORY_SECTOR ? MEMORY_SECTOR : 0),
          MEMORY_SECTOR);
  during (s, WRITE, 3 * c, 2 * c);
  flush (b);
  add (b, WRITE, 8 * c, c);
  return true;
}

/* A flush comes while a commit runs that has begun before what it is for. */
static bool
flush_in_a_commit (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;
  struct step *s;

  if (variant >= 6)
    return false;
  add (b, WRITE, 0, c);
  s = add (b, FLUSH, 0, 0);
  pause_at (s, MEMORY_FLUSH, 1 + variant / 2, variant % 2, false);
  during (s, WRITE, 2 * c, c);
  during (s, WRITE, 0, MEMORY_SECTOR);
  during (s, FLUSH, 0, 0);
  add (b, WRITE, c, c);
  return true;
}

/* Two requests touch one cluster, but not the same bytes. */
static bool
in_one_cluster (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster, half = c / 2;
  struct step *s;

  /* Clusters of 512 bytes would have to be shared by bytes. */
  if (variant >= 3 * 4 || c == MEMORY_SECTOR)
    return false;
  add (b, WRITE, 3 * c, MEMORY_SECTOR);
  for (unsigned i = 0; i < 5; i++) {
    s = add (b, variant % 3 == 2 ? ZERO : WRITE, i * c, half);
    pause_at (s, variant % 3 ? -1 : MEMORY_WRITE, 1 + variant / 6,
              variant / 3 % 2, false);
    during (s, variant % 3 == 1 ? ZERO : WRITE, i * c + half, half);
    if (i & 1)
      during (s, FLUSH, 0, 0);
  }
  flush (b);
  add (b, WRITE, 0, MEMORY_SECTOR);
  return true;
}

/* A commit while the data of a cluster is on its way. */
static bool
commit_in_a_write (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;
  struct step *s;

  if (variant >= 4)
    return false;
  for (unsigned i = 0; i < 5; i++) {
    s = add (b, WRITE, i * c, variant & 1 ? c : MEMORY_SECTOR);
    pause_at (s, MEMORY_WRITE, 1, variant & 2, true);
    during (s, FLUSH, 0, 0);
  }
  return true;
}

/* What a request under way has looked up is let go of, and asked for. */
static bool
reuse_in_a_request (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;
  struct step *s;

  if (variant >= 4 || b->spec->external)
    return false;
  add (b, WRITE, 0, 2 * c);
  flush (b);
  if (variant & 1) {
    s = add (b, READ, 0, c);
    pause_at (s, MEMORY_READ, 1, false, true);
  }
  else {
    s = add (b, WRITE, 0, c);
    /* What is compressed is never written in place: others wait, then. */
    pause_at (s, MEMORY_WRITE, 1, false, !b->spec->write.compress);
    s->races = true;
  }
  during (s, variant & 2 ? ZERO : TRIM, 0, c);
  during (s, FLUSH, 0, 0);
  during (s, FLUSH, 0, 0);
  for (unsigned i = 2; i < 7; i++)
    during (s, WRITE, i * c, c);
  flush (b);
  add (b, READ, 0, 8 * c);
  return true;
}

/* Everything gets a new place; the old ones are used again at once. */
static bool
reuse (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;

  if (variant >= 2)
    return false;
  add (b, WRITE, 0, 4 * c);
  flush (b);
  for (unsigned i = 0; i < 3; i++) {
    add (b, variant ? ZERO : TRIM, 0, 2 * c);
    add (b, WRITE, (5 + 2 * i) * c, 2 * c);
    if (i == 1)
      flush (b);
    add (b, WRITE, 0, 2 * c);
    flush (b);
  }
  return true;
}

/* Clusters that share a host cluster, if they are compressed, come and go;
 * others come while one that has lost them gives back its space.
 */
static bool
packed (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;
  struct step *s;

  /* Clusters of 512 bytes would have to be shared by bytes. */
  if (variant >= (c == MEMORY_SECTOR ? 6 : 8) || !b->spec->write.compress)
    return false;
  if (variant >= 6) {           /* a part, and meanwhile all of the cluster */
    if (c / 2 < MEMORY_SECTOR)
      return false;             /* of a sector nobody knows what to expect */
    add (b, WRITE, 0, 2 * c);
    s = add (b, WRITE, 0, c / 2);
    pause_at (s, MEMORY_WRITE, 1, variant & 1, false);
    during (s, WRITE, 0, 2 * c);
    s->races = true;
    flush (b);
    add (b, READ, 0, 2 * c);
    return true;
  }
  if (variant < 2) {
    add (b, WRITE, 0, 9 * c);
    flush (b);
    add (b, TRIM, c, 2 * c);
    add (b, WRITE, 4 * c, c / 2);
    flush (b);
    flush (b);
    add (b, WRITE, 10 * c, 3 * c);
    add (b, WRITE, 5 * c, c);
    if (variant)
      flush (b);
    add (b, TRIM, 0, 12 * c);
    flush (b);
    add (b, WRITE, 3 * c, 4 * c);
    flush (b);
    return true;
  }
  add (b, WRITE, 0, c);
  flush (b);
  add (b, variant & 2 ? TRIM : ZERO, 0, c);
  s = add (b, FLUSH, 0, 0);
  pause_at (s, MEMORY_DISCARD, 1, variant & 1, variant < 4);
  during (s, WRITE, 2 * c, c);
  during (s, WRITE, 4 * c, 2 * c);
  if (variant >= 4)
    during (s, FLUSH, 0, 0);
  flush (b);
  add (b, READ, 0, 8 * c);
  add (b, WRITE, 6 * c, 2 * c);
  flush (b);
  return true;
}

/* Parts of clusters that had no place, or a shared one. */
static bool
parts (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster, unit = b->spec->extended ? c / 32 : c;
  const uint64_t skip = unit > MEMORY_SECTOR ? unit / 2 : MEMORY_SECTOR / 2;

  if (variant >= 2)
    return false;
  for (unsigned i = 0; i < 5; i++) {
    add (b, WRITE, i * c + (variant ? skip : 0), skip);
    if (i % 2)
      flush (b);
  }
  add (b, ZERO, skip / 2, skip);
  flush (b);
  add (b, TRIM, 0, 4 * c);
  add (b, WRITE, c + 100, 100);
  flush (b);
  return true;
}

/* A data file of which much was found to be empty, and no longer is. */
static bool
empty_data_file (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;

  if (variant >= 2 || !b->spec->external)
    return false;
  add (b, WRITE, 0, c / 8);
  add (b, WRITE, 8 * c, c / 8);
  add (b, WRITE, c, 3 * c);
  add (b, variant ? TRIM : ZERO, c, 2 * c)->request.flags = 0;
  if (variant)
    flush (b);
  for (unsigned i = 1; i < 5; i++)
    add (b, WRITE, i * c + c / 4, c / 4);
  flush (b);
  return true;
}

/* So many clusters that tables have to be made and grow. */
static bool
grow (struct builder *b, unsigned variant)
{
  const uint64_t end = b->spec->size, c = b->cluster;
  const unsigned steps = 6;

  if (variant >= 2)
    return false;
  for (unsigned i = 0; i < steps; i++) {
    uint64_t offset = end / steps * i / c * c, length = end / steps;

    if (length > 24 * c)
      length = 24 * c;
    add (b, WRITE, offset, length / MEMORY_SECTOR * MEMORY_SECTOR);
    if (variant && i % 2)
      flush (b);
  }
  flush (b);
  add (b, TRIM, 0, end);
  flush (b);
  flush (b);
  add (b, WRITE, 0, 2 * c);
  return true;
}

/* Many want the same L2 table for themselves, and only one can make it. */
static bool
one_table (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;
  struct step *s;

  if (variant >= 6)
    return false;
  s = add (b, WRITE, 0, c);
  pause_at (s, MEMORY_READ, 1 + variant / 2, variant % 2, false);
  s->pause.together = true;
  for (unsigned i = 2; i < 8 && (i + 1) * c <= b->spec->size; i++)
    during (s, WRITE, i * c, c);
  for (unsigned i = 8; i < 16; i++)
    add (b, WRITE, i * c, c);
  flush (b);
  return true;
}

/* The end of the file is given back, and asked for again. */
static bool
settle (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;

  if (variant >= 1)
    return false;
  add (b, WRITE, 0, 4 * c);
  add (b, SETTLE, 0, 0);
  add (b, TRIM, 0, 4 * c);
  add (b, SETTLE, 0, 0);
  add (b, WRITE, 0, MEMORY_SECTOR / 2);
  add (b, WRITE, 2 * c + MEMORY_SECTOR / 2, MEMORY_SECTOR / 2);
  flush (b);
  add (b, WRITE, 3 * c, c);
  add (b, TRIM, 0, 3 * c);
  add (b, SETTLE, 0, 0);
  return true;
}

static struct step *
settle_idle (struct builder *b)
{
  struct step *s = add (b, SETTLE, 0, 0);

  s->request.flags = 1;
  return s;
}

static void
settle_idle_during (struct step *s)
{
  s->during[s->n_during++] = (struct request) { .kind = SETTLE, .flags = 1 };
}

/* Nobody does anything for a while, or almost nobody: what was written is
 * stored, bitmaps included.  The first look only says that something was done.
 */
static bool
idle (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;
  struct step *s;

  if (variant >= 2 * 8)
    return false;
  add (b, WRITE, 0, 2 * c);
  settle_idle (b);
  s = settle_idle (b);
  if (variant < 8) {
    pause_at (s, -1, 1 + variant / 2 * 3, variant % 2, false);
    during (s, WRITE, 3 * c, c);
    during (s, FLUSH, 0, 0);
  }
  s = add (b, WRITE, c, 2 * c);
  if (variant >= 8) {
    pause_at (s, -1, 1 + (variant - 8) / 2, variant % 2, false);
    settle_idle_during (s);
    settle_idle_during (s);
  }
  flush (b);
  add (b, TRIM, 0, c);
  settle_idle (b);
  settle_idle (b);
  settle_idle (b);
  add (b, ZERO, 4 * c, c);
  flush (b);
  return true;
}

/* Room for one table in memory, and requests for several: of one request, one
 * after the other, and while a commit is under way.
 */
static bool
evict (struct builder *b, unsigned variant)
{
  const bool compact = b->spec->external && !b->spec->extended;
  const uint64_t c = b->cluster;
  const uint64_t span = (c / (b->spec->extended ? 16 : 8)) * c;
  struct step *s;

  if (variant >= 8 || b->spec->size <= span)
    return false;
  /* So that a changed table stays until another one wants its place, for it is
   * not more than half of what there is room for; or that it is committed by the
   * request that changes it, and another one wants its place meanwhile.
   */
  b->workload->l2_cache =
    2 * (sizeof (struct l2_table) + (compact ? c / 32 : c));
  if (variant & 4)
    b->workload->l2_cache /= 2;
  add (b, WRITE, span, c);
  flush (b);
  s = add (b, WRITE, 0, 2 * c);
  if (!(variant & 4))
    s = add (b, FLUSH, 0, 0);
  pause_at (s, MEMORY_FLUSH, 1 + variant / 2 % 2, variant % 2, false);
  during (s, READ, span, c);
  during (s, READ, 0, 2 * c);
  during (s, WRITE, 2 * c, c);
  during (s, READ, span, c);
  during (s, READ, 0, 4 * c);
  add (b, WRITE, span - c, 2 * c);
  for (unsigned i = 0; i < 3; i++) {
    add (b, WRITE, (4 + i) * c, c);
    add (b, READ, span, 4 * c);
    add (b, WRITE, span + i * c, c);
    add (b, READ, 0, 8 * c);
  }
  flush (b);
  return true;
}

/* A commit of two tables that writes one in each round: tables that are new or
 * move out of a snapshot, and tables that let go of what they refer to, which is
 * used again at once.  Where tables are compact in memory there may be several
 * that are not too many; otherwise only those of one request are.
 */
static bool
rounds (struct builder *b, unsigned variant)
{
  const bool compact = b->spec->external && !b->spec->extended;
  const uint64_t c = b->cluster;
  const uint64_t span = (c / (b->spec->extended ? 16 : 8)) * c;

  if (variant >= 1U + compact || b->spec->size < span + 2 * c)
    return false;
  b->workload->l2_cache =
    variant ? 4 * (sizeof (struct l2_table) + c / 32) : 1;
  add (b, WRITE, span - 2 * c, 4 * c);
  flush (b);
  add (b, TRIM, span - c, 2 * c);
  add (b, WRITE, 0, 2 * c);
  add (b, WRITE, span - c, 2 * c);
  flush (b);
  add (b, ZERO, span - 2 * c, 3 * c);
  add (b, WRITE, span - 2 * c, c);
  flush (b);
  return true;
}

/* New tables at both ends of an L1 table that is longer than a sector. */
static bool
wide (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster, span = c / 8 * c;

  if (variant >= 3 || b->spec->size <= 64 * span)
    return false;
  for (unsigned i = 0; i < 3; i++) {
    add (b, WRITE, (63 - i) * span, c);
    add (b, variant ? WRITE : ZERO, (64 + i) * span, c);
    if (variant == 2)
      flush (b);
  }
  flush (b);
  add (b, TRIM, 62 * span, 4 * span);
  flush (b);
  add (b, WRITE, 61 * span, 6 * c);
  return true;
}

/* The nth flush fails; the client tries once more, as clients do. */
static bool
failed_flush (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;

  if (variant >= 8 + 4)
    return false;
  if (variant >= 8)             /* when tables of counts grow */
    add (b, WRITE, 0, 70 * c);
  add (b, WRITE, 0, 2 * c);
  flush (b);
  add (b, WRITE, 0, c);
  add (b, WRITE, 3 * c, c);
  flush (b);
  flush (b);
  add (b, WRITE, c, c);
  flush (b);
  b->workload->fault = (struct memory_fault) {
    .kind = MEMORY_FLUSH, .file = -1, .nth = 1 + variant % 8, .error = EIO,
  };
  return true;
}

/* The nth write fails, though it has perhaps come to be; life goes on.  If
 * there is no space for the session's first changes, they are tried again, at
 * once: the first flush would cover what the failed attempt has left.
 */
static bool
failed_write (struct builder *b, unsigned variant)
{
  const uint64_t c = b->cluster;

  if (variant >= 2 * 12 + 6)
    return false;
  add (b, WRITE, 0, 2 * c);
  if (variant >= 2 * 12)
    add (b, WRITE, 0, 2 * c);
  flush (b);
  add (b, WRITE, 4 * c, 2 * c);
  flush (b);
  add (b, WRITE, 2 * c, c);
  flush (b);
  b->workload->fault = (struct memory_fault) {
    .kind = MEMORY_WRITE, .file = -1, .nth = 1 + variant / 2, .error = EIO,
    .landed = variant % 2 ? 0 : 2,
  };
  if (variant >= 2 * 12) {
    b->workload->fault.nth = 1 + variant - 2 * 12;
    b->workload->fault.landed = 2;
    b->workload->fault.error = ENOSPC;
  }
  return true;
}

static const struct {
  const char *name;
  bool (*build) (struct builder *b, unsigned variant);
} directed[] = {
  { "in-a-commit", in_a_commit },
  { "flush-in-a-commit", flush_in_a_commit },
  { "in-one-cluster", in_one_cluster },
  { "commit-in-a-write", commit_in_a_write },
  { "reuse-in-a-request", reuse_in_a_request },
  { "reuse", reuse },
  { "packed", packed },
  { "parts", parts },
  { "empty-data-file", empty_data_file },
  { "grow", grow },
  { "one-table", one_table },
  { "settle", settle },
  { "idle", idle },
  { "evict", evict },
  { "rounds", rounds },
  { "wide", wide },
  { "failed-flush", failed_flush },
  { "failed-write", failed_write },
};

/* Small disks: what lies behind the end comes to lie at it. */
static void
clip (struct workload *workload)
{
  const struct image_spec *spec = workload->spec;
  const uint64_t cluster = UINT64_C (1) << spec->cluster_bits;

  for (size_t s = 0; s < workload->steps; s++) {
    struct step *step = &workload->step[s];

    for (unsigned j = 0; j <= step->n_during; j++) {
      struct request *q = j ? &step->during[j - 1] : &step->request;

      if (q->offset >= spec->size)
        q->offset = spec->size - cluster;
      if (q->length > spec->size - q->offset)
        q->length = spec->size - q->offset;
    }
  }
}

/* --- two requests, at every point of the first one --- */

enum { SAME_CLUSTER, SAME_SECTORS, NEIGHBOURS, OTHER_TABLE, RELATIONS };

/* A write of a part, a zero that keeps the place; the rest are requests. */
enum { PART = REQUEST_KINDS, KEEP, KINDS };

#define SPECS (sizeof crash_specs / sizeof crash_specs[0] - 1)

static void
fill_in (struct request *q, unsigned kind, uint64_t offset, uint64_t length)
{
  *q = (struct request) {
    .kind = kind == PART ? WRITE : kind == KEEP ? ZERO : kind,
    .offset = offset, .length = length,
    .flags = kind == ZERO ? IMAGE_ZERO_UNMAP : kind == SETTLE,
  };
  if (kind == FLUSH || kind == SETTLE)
    q->offset = q->length = 0;
  else if (kind == PART && length > MEMORY_SECTOR)
    q->length = length / 2;
}

unsigned
crash_pairs (void)
{
  return SPECS * RELATIONS * KINDS * KINDS;
}

bool
crash_pair (unsigned number, unsigned point, struct workload *workload)
{
  const unsigned relation = number / SPECS % RELATIONS;
  const unsigned first = number / SPECS / RELATIONS % KINDS;
  const unsigned second = number / SPECS / RELATIONS / KINDS;
  struct builder b = {
    .workload = workload,
    .spec = &crash_specs[number % SPECS],
    .cluster = UINT64_C (1) << crash_specs[number % SPECS].cluster_bits,
  };
  const uint64_t c = b.cluster;
  const uint64_t span = c / (b.spec->extended ? 16 : 8) * c;
  const bool no_range = first == FLUSH || first == SETTLE || second == FLUSH
    || second == SETTLE;
  /* What is in the first one's cluster, and whether all is flushed before and
   * after, is different for each number.
   */
  struct rng rng = { number };
  const uint64_t at = rng_below (&rng, 5) * c, half = c / 2;
  struct step *s;

  if ((no_range && relation != NEIGHBOURS) || (first == READ && second == READ)
      || (relation == SAME_CLUSTER && c == MEMORY_SECTOR)
      || (relation == OTHER_TABLE && at + span >= b.spec->size))
    return false;
  memset (workload, 0, sizeof *workload);
  workload->name = "pair";
  workload->variant = number * PAIR_POINTS + point;
  workload->spec = b.spec;
  if (rng_below (&rng, 4) == 0)
    workload->l2_cache = c;

  add (&b, WRITE, 6 * c, 2 * c);
  if (rng_below (&rng, 2))
    add (&b, WRITE, at, c);
  if (rng_below (&rng, 2))
    flush (&b);
  add (&b, TRIM, 6 * c, c);
  if (rng_below (&rng, 2))
    add (&b, WRITE, at + c, MEMORY_SECTOR);
  if (first == SETTLE)
    settle_idle (&b);

  s = add (&b, WRITE, 0, 0);
  fill_in (&s->request, first, at, relation == SAME_CLUSTER ? half : c);
  if (point < PAIR_POINTS / 2)
    pause_at (s, -1, 1 + point / 2, point % 2, false);
  else
    pause_at (s, MEMORY_READ, 1 + (point - PAIR_POINTS / 2) / 2, point % 2,
              false);
  fill_in (&s->during[s->n_during++], second,
           relation == SAME_CLUSTER ? at + half
           : relation == SAME_SECTORS ? at
           : relation == NEIGHBOURS ? at + c : at + span,
           relation == SAME_CLUSTER ? half : c);
  s->races = relation == SAME_SECTORS && !no_range;
  if (second == SETTLE)
    settle_idle_during (s);
  else if (rng_below (&rng, 2))
    during (s, FLUSH, 0, 0);
  if (rng_below (&rng, 2))
    flush (&b);
  add (&b, WRITE, at + 2 * c, 2 * c);
  clip (workload);
  return true;
}

bool
crash_directed (struct directed_cursor *at, struct workload *workload)
{
  for (; at->place < sizeof directed / sizeof directed[0]; at->place++) {
    for (; crash_specs[at->spec].name; at->spec++) {
      struct builder b = {
        .workload = workload,
        .spec = &crash_specs[at->spec],
        .cluster = UINT64_C (1) << crash_specs[at->spec].cluster_bits,
      };

      memset (workload, 0, sizeof *workload);
      workload->name = directed[at->place].name;
      workload->spec = b.spec;
      workload->variant = at->variant;
      if (directed[at->place].build (&b, at->variant)) {
        clip (workload);
        at->variant++;
        return true;
      }
      workload_free (workload);
      at->variant = 0;
    }
    at->spec = 0;
  }
  return false;
}
