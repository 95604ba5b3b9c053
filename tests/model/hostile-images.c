/* qcow2ext: sound images that lies are told about.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hostile-images.h"

const struct hostile_base hostile_bases[] = {
  { .spec = { .name = "internal", .version = 3, .cluster_bits = 9,
      .refcount_order = 4, .size = 48 << 10, .map = "D.ZAD",
      .holes = true } },
  { .spec = { .name = "v2", .version = 2, .cluster_bits = 9, .refcount_order = 4,
      .size = 40 << 10, .map = "D.D..", .backing = true } },
  { .spec = { .name = "snapshot", .version = 3, .cluster_bits = 9,
      .refcount_order = 4, .size = 48 << 10, .map = "DDZ.A",
      .snapshot = true } },
  { .spec = { .name = "compressed", .version = 3, .cluster_bits = 12,
      .refcount_order = 3, .size = 48 << 10, .map = "CCD.C" } },
  { .spec = { .name = "compressed-snapshot", .version = 3, .cluster_bits = 10,
      .refcount_order = 5, .size = 24 << 10, .map = "CDC.",
      .snapshot = true } },
  { .spec = { .name = "bitmaps", .version = 3, .cluster_bits = 9,
      .refcount_order = 4, .size = 40 << 10, .map = "D..A" },
    .bitmaps = true },
  { .spec = { .name = "extended", .version = 3, .cluster_bits = 14,
      .refcount_order = 4, .size = 40 << 10, .map = "S.DZ",
      .extended = true } },
  { .spec = { .name = "wide-counts", .version = 3, .cluster_bits = 9,
      .refcount_order = 6, .size = 16 << 10, .map = "D..", .lazy = true } },
  { .spec = { .name = "narrow-counts", .version = 3, .cluster_bits = 9,
      .refcount_order = 0, .size = 32 << 10, .map = "D.Z" } },
  { .spec = { .name = "pair", .version = 3, .cluster_bits = 9, .refcount_order = 4,
      .size = 48 << 10, .map = "D.ZA", .external = true, .stale = true } },
  { .spec = { .name = "raw-pair", .version = 3, .cluster_bits = 9,
      .refcount_order = 4, .size = 48 << 10, .map = "D.ZA",
      .external = true, .raw = true, .stale = true }, .bitmaps = true },
  { .spec = { .name = "pair-extended", .version = 3, .cluster_bits = 14,
      .refcount_order = 4, .size = 48 << 10, .map = "S.DZ",
      .external = true, .extended = true, .short_data = true } },
  { .spec = { .name = "encrypted", .version = 3, .cluster_bits = 9,
      .refcount_order = 4, .size = 48 << 10, .map = "D.ZAD",
      .encrypted = true } },
  { .spec = { .name = "encrypted-pair", .version = 3, .cluster_bits = 12,
      .refcount_order = 4, .size = 48 << 10, .map = "D.ZA",
      .external = true, .encrypted = true, .short_data = true } },
  { .spec = { .name = NULL } }
};

void
hostile_put (struct memory_file *f, uint64_t offset, unsigned bytes,
             uint64_t v)
{
  uint8_t buf[8];

  for (unsigned i = bytes; i-- > 0; v >>= 8)
    buf[i] = v;
  memory_file_write (f, buf, bytes, offset);
}

uint64_t
hostile_get (const struct memory_file *f, uint64_t offset, unsigned bytes)
{
  uint64_t v = 0;

  for (unsigned i = 0; i < bytes; i++)
    v = v << 8 | (offset + i < f->size ? f->bytes[offset + i] : 0);
  return v;
}

/* A cluster at the end of the file, counted in the first refcount block. */
static uint64_t
append (const struct image_spec *spec, struct memory_file *f)
{
  const uint64_t cluster = UINT64_C (1) << spec->cluster_bits;
  const uint64_t host = (f->size + cluster - 1) & -cluster;
  const uint64_t block = hostile_get (f, hostile_get (f, 48, 8), 8);
  const unsigned width = 1 << (spec->refcount_order - 3);

  if (host / cluster >= cluster / width)
    abort ();
  hostile_put (f, block + host / cluster * width, width, 1);
  memory_file_resize (f, host + cluster);
  return host;
}

static uint64_t
put_bitmap (struct memory_file *f, uint64_t at, uint64_t table,
            uint32_t flags, unsigned granularity, const char *name)
{
  hostile_put (f, at, 8, table);
  hostile_put (f, at + 8, 4, 1);
  hostile_put (f, at + 12, 4, flags);
  hostile_put (f, at + 16, 1, 1);
  hostile_put (f, at + 17, 1, granularity);
  hostile_put (f, at + 18, 2, strlen (name));
  memory_file_write (f, name, strlen (name), at + 24);
  return at + ((24 + strlen (name) + 7) & ~7);
}

static void
add_bitmaps (const struct image_spec *spec, struct memory_file *f)
{
  const uint64_t directory = append (spec, f);
  const uint64_t tables[] = {
    append (spec, f), append (spec, f), append (spec, f)
  };
  const uint64_t bits = append (spec, f);
  uint64_t pos = 104, at = directory;

  while (hostile_get (f, pos, 4))
    pos += 8 + ((hostile_get (f, pos + 4, 4) + 7) & ~UINT64_C (7));
  at = put_bitmap (f, at, tables[0], 2, 9, "records");
  at = put_bitmap (f, at, tables[1], 0, 16, "still");
  at = put_bitmap (f, at, tables[2], 2, 12, "empty");
  hostile_put (f, tables[0], 8, bits);
  hostile_put (f, tables[1], 8, 1);
  hostile_put (f, bits, 8, UINT64_C (0x0102030405060708));

  hostile_put (f, pos, 4, 0x23852875);
  hostile_put (f, pos + 4, 4, 24);
  hostile_put (f, pos + 8, 4, 3);
  hostile_put (f, pos + 16, 8, at - directory);
  hostile_put (f, pos + 24, 8, directory);
  hostile_put (f, 88, 8, hostile_get (f, 88, 8) | 1);
}

void
hostile_make (const struct hostile_base *base, struct memory_file *file)
{
  uint8_t *guest = malloc (base->spec.size);

  if (guest == NULL)
    abort ();
  memory_files_free (file);
  make_image (&base->spec, &file[MEMORY_IMAGE], &file[MEMORY_DATA],
              &file[MEMORY_BACKING], guest);
  if (base->bitmaps)
    add_bitmaps (&base->spec, &file[MEMORY_IMAGE]);
  free (guest);
}
