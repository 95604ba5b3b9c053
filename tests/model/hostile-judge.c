/* qcow2ext: may an image that lies lead to this operation?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <inttypes.h>
#include <string.h>

#include "hostile-session.h"
#include "image-walker.h"

/* The most that is read or written in one go: an L1 table. */
#define TRANSFER_MAX (UINT64_C (32) << 20)

/* So many compressed clusters may come to lie in one at once. */
#define PACKED_MAX 256

static uint64_t
load (const uint8_t *p, unsigned bytes)
{
  uint64_t v = 0;

  for (unsigned i = 0; i < bytes; i++)
    v = v << 8 | p[i];
  return v;
}

/* May a table refer to this?  Not to something that is metadata already. */
static bool
may_point_at (const struct walker *w, uint64_t host)
{
  return host % w->cluster == 0 && host != 0
    && !(walker_what (w, host, w->cluster) & IS_METADATA);
}

static bool
l1_change_is_fine (const struct walker *w, uint64_t entry)
{
  return !(entry & UINT64_C (0x7f000000000001ff)) && entry >> 63
    && may_point_at (w, entry & ~(UINT64_C (1) << 63));
}

/* Does an entry for a compressed cluster lead to no metadata? */
static bool
packed_is_fine (const struct walker *w, uint64_t entry)
{
  const unsigned x = 62 - (w->bits - 8);
  const uint64_t host = entry & ((UINT64_C (1) << x) - 1);
  const uint64_t sectors = (entry & ~(UINT64_C (3) << 62)) >> x;

  return !(entry >> 63)
    && !(walker_what (w, host, (sectors + 1) * 512 - host % 512)
         & IS_METADATA);
}

static bool
l2_change_is_fine (const struct session *s, uint64_t at, uint64_t old,
                   uint64_t entry)
{
  const struct walker *w = &s->walker;
  const uint64_t host = entry & UINT64_C (0x00fffffffffffe00);

  if (w->extended && at % 16 == 8)
    return ((uint32_t) entry & entry >> 32) == 0;
  if (s->run->write.compress && (entry >> 62 & 1))
    return packed_is_fine (w, entry);
  if (entry & UINT64_C (0x7f000000000001fe)
      || ((entry & 1) && (w->version < 3 || w->extended)))
    return false;
  /* What an entry leads to already is for the engine to refuse when it would
   * write there.
   */
  if (host == (old & UINT64_C (0x00fffffffffffe00)))
    return true;
  if (w->external)
    return host % w->cluster == 0 && (host == 0 || entry >> 63);
  if (host == 0)
    return !(entry >> 63);
  return entry >> 63 && may_point_at (w, host);
}

/* Counts go down, or from 0 to 1; up by a few where compressed clusters share
 * one; any way while they are rebuilt.
 */
static bool
counts_are_fine (const struct session *s, uint64_t old, uint64_t new)
{
  const unsigned width = 1U << s->walker.order;
  const uint64_t mask = width == 64 ? UINT64_MAX
                                    : (UINT64_C (1) << width) - 1;

  if (s->was_dirty)
    return true;
  for (unsigned i = 0; i < 64; i += width) {
    const uint64_t a = old >> i & mask, b = new >> i & mask;

    if (b > a && b - a > (s->run->write.compress ? PACKED_MAX : a == 0))
      return false;
  }
  return true;
}

/* Fields that are patched in place: features, where the refcount table is. */
static bool
header_change_is_fine (uint64_t at, uint64_t old, uint64_t new)
{
  const uint64_t diff = old ^ new;

  switch (at) {
  case 48:
    return new % 512 == 0;
  case 56:                      /* its clusters; the number of snapshots */
    return (uint32_t) diff == 0;
  case 72:                      /* dirty off, corrupt on */
    return (diff & ~UINT64_C (3)) == 0 && !(new & ~old & 1)
      && !(old & ~new & 2);
  case 88:                      /* autoclear bits go off */
    return (new & ~old) == 0;
  default:
    return false;
  }
}

/* Is this change of 8 bytes (at an offset that is a multiple of 8) one that
 * makes sense for what is there?
 */
static bool
change_is_fine (const struct session *s, unsigned what, uint64_t at,
                uint64_t old, uint64_t new)
{
  const struct walker *w = &s->walker;
  const uint64_t offset = UINT64_C (0x00fffffffffffe00);

  if (old == new)
    return true;
  if (new >> 32 == GUEST)
    return false;
  /* To say that the image is corrupt is fine whatever else claims to lie
   * there.
   */
  if (what & IS_HEADER && at == 72)
    return header_change_is_fine (at, old, new);
  if ((what & IS_HEADER) && !header_change_is_fine (at, old, new))
    return false;
  if ((what & IS_L1) && !l1_change_is_fine (w, new))
    return false;
  if ((what & IS_L2) && !l2_change_is_fine (s, at, old, new))
    return false;
  if ((what & IS_REFTABLE)
      && (old & ~UINT64_C (511) || !may_point_at (w, new)))
    return false;
  if ((what & IS_REFBLOCK) && !counts_are_fine (s, old, new))
    return false;
  if (what & (IS_SNAPSHOTS | IS_SNAPSHOT_L1))
    return false;
  /* A table that is shared is written only if the image lies about that. */
  if ((what & IS_SNAPSHOT_L2) && !(what & IS_L2))
    return false;
  /* The flag "in use" of an entry of the directory. */
  if ((what & IS_BITMAPS) && (old ^ new) != 1)
    return false;
  if ((what & IS_BITMAP_TABLE)
      && (old & offset || !may_point_at (w, new)))
    return false;
  if ((what & IS_BITMAP) && old & ~new)
    return false;
  return true;
}

/* Is the cluster metadata as the file is now?  What was one, and was let go
 * of since, may be used for anything.
 */
static bool
still_protected (struct session *s, uint64_t cluster)
{
  walker_run (&s->now, &s->run->file[MEMORY_IMAGE]);
  if (!s->now.valid)
    return true;
  if (cluster < s->now.clusters && s->now.what[cluster] & IS_METADATA)
    return true;
  s->walker.what[cluster] = 0;
  return false;
}

static void
judge_image_write (struct session *s, const struct memory_op *op)
{
  const struct memory_file *f = &s->run->file[MEMORY_IMAGE];
  const struct walker *w = &s->walker;
  const uint64_t end = op->offset + op->length;

  if (!w->valid) {
    session_fail (s, "there is no header any more");
    return;
  }
  for (uint64_t at = op->offset & ~UINT64_C (7); at < end; at += 8) {
    const uint64_t c = at / w->cluster;
    uint8_t old[8] = { 0 }, new[8];

    if (c >= w->clusters)
      return;
    if (!(w->what[c] & IS_METADATA)) {
      at = (c + 1) * w->cluster - 8;
      continue;
    }
    for (unsigned i = 0; i < 8; i++) {
      if (at + i < f->size)
        old[i] = f->bytes[at + i];
      new[i] = at + i >= op->offset && at + i < end
        ? (op->data ? op->data[at + i - op->offset] : 0) : old[i];
    }
    if (op->kind == MEMORY_WRITE
        && change_is_fine (s, w->what[c], at, load (old, 8), load (new, 8)))
      continue;
    if (still_protected (s, c)) {
      session_fail (s, "a %s at 0x%" PRIx64 " of 0x%" PRIx64 " bytes changes "
                    "%s at 0x%" PRIx64 " from %016" PRIx64 " to %016" PRIx64,
                    memory_kind_name (op->kind), op->offset, op->length,
                    walker_name (w->what[c]), at, load (old, 8), load (new, 8));
      return;
    }
  }
}

/* Up to where the data file may be written to: with the rest of the last
 * cluster, if it is encrypted.
 */
static uint64_t
end_of_data (const struct session *s)
{
  if (!s->walker.encrypted)
    return s->size;
  return (s->size + s->walker.cluster - 1) & -s->walker.cluster;
}

void
session_judge (void *opaque, const struct memory_op *op, bool before)
{
  static const char *const files[] = { "image", "data", "backing" };
  struct session *s = opaque;
  const bool change = op->kind != MEMORY_READ && op->kind != MEMORY_FLUSH;

  if (!before || !s->judging)
    return;
  s->run->operations++;
  if (s->operations++ == s->budget)
    session_fail (s, "a request takes more than %" PRIu64 " operations",
                  s->budget);
  if (op->kind == MEMORY_RESIZE) {
    if (op->file == MEMORY_IMAGE && op->offset < s->start_size)
      session_fail (s, "the image file is made shorter than it was");
    if (op->file == MEMORY_DATA && op->offset > s->size)
      session_fail (s, "the data file is made longer than the disk");
  }
  else if (op->offset > INT64_MAX || op->length > INT64_MAX - op->offset)
    session_fail (s, "a %s at 0x%" PRIx64 " of 0x%" PRIx64 " bytes of the %s "
                  "file", memory_kind_name (op->kind), op->offset, op->length,
                  files[op->file]);
  else if (op->length > TRANSFER_MAX
           && (op->kind == MEMORY_READ || op->kind == MEMORY_WRITE))
    session_fail (s, "a %s of 0x%" PRIx64 " bytes in one go",
                  memory_kind_name (op->kind), op->length);
  if (!change)
    return;

  if (!s->changing || !s->run->writable)
    session_fail (s, "a %s of the %s file, but no request to change something",
                  memory_kind_name (op->kind), files[op->file]);
  if (op->file == MEMORY_BACKING)
    session_fail (s, "a %s of the backing file", memory_kind_name (op->kind));
  if (op->file == MEMORY_DATA && op->kind != MEMORY_RESIZE
      && op->offset + op->length > end_of_data (s))
    session_fail (s, "a %s at 0x%" PRIx64 " of 0x%" PRIx64 " bytes of the data "
                  "file, behind the disk's end", memory_kind_name (op->kind),
                  op->offset, op->length);
  if (op->file == MEMORY_IMAGE && op->kind != MEMORY_RESIZE)
    judge_image_write (s, op);
  s->walked &= op->file != MEMORY_IMAGE;
}
