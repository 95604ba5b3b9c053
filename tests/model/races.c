/* qcow2ext: requests that race with each other.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each kind has a function that makes the setup and the requests of each thread,
 * for clusters of c bytes, in variants until it returns false; and the images
 * that it is tried on.
 */

#include "build-config.h"

#include <errno.h>
#include <string.h>

#include "races.h"

static void
then (struct race *r, unsigned thread, enum request_kind kind,
      uint64_t offset, uint64_t length)
{
  struct request *q = &r->request[thread][r->n_requests[thread]++];

  *q = (struct request) { .kind = kind, .offset = offset, .length = length };
  q->flags = kind == ZERO ? IMAGE_ZERO_UNMAP : kind == SETTLE;
  if (r->threads < thread + 1)
    r->threads = thread + 1;
}

static void
before (struct race *r, enum request_kind kind, uint64_t offset,
        uint64_t length)
{
  r->setup[r->n_setup++] =
    (struct request) { .kind = kind, .offset = offset, .length = length,
                       .flags = kind == SETTLE };
}

/* What is let go of is wanted while it becomes durable that it is free. */
static bool
trim_flush_allocate (struct race *r, uint64_t c)
{
  if (r->variant >= 2)
    return false;
  before (r, WRITE, 0, 2 * c);
  before (r, FLUSH, 0, 0);
  then (r, 0, r->variant ? ZERO : TRIM, 0, c);
  then (r, 1, FLUSH, 0, 0);
  then (r, 2, WRITE, 5 * c, 2 * c);
  return true;
}

/* Two change one cluster: all of it, or a part each. */
static bool
one_cluster (struct race *r, uint64_t c, enum request_kind a,
             enum request_kind b)
{
  const uint64_t at = r->variant % 5 * c;

  if (r->variant >= 10)
    return false;
  if (r->variant / 5) {         /* no byte in common */
    then (r, 0, a, at + c / 8, c / 4);
    then (r, 1, b, at + c / 2, c / 2);
  }
  else {
    then (r, 0, a, at + c / 4, c / 2);
    then (r, 1, b, at, c);
  }
  return true;
}

static bool
write_trim (struct race *r, uint64_t c)
{
  return one_cluster (r, c, WRITE, TRIM);
}

static bool
write_write (struct race *r, uint64_t c)
{
  return one_cluster (r, c, WRITE, WRITE);
}

static bool
write_zero (struct race *r, uint64_t c)
{
  return one_cluster (r, c, WRITE, ZERO);
}

static bool
zero_write (struct race *r, uint64_t c)
{
  return one_cluster (r, c, ZERO, WRITE);
}

/* The same with a commit in between, which shows what is half done. */
static bool
two_cows_flush (struct race *r, uint64_t c)
{
  const uint64_t at = r->variant * c;

  if (r->variant >= 5)
    return false;
  then (r, 0, WRITE, at + c / 8, c / 8);
  then (r, 1, WRITE, at + c / 2, c / 8);
  then (r, 2, FLUSH, 0, 0);
  return true;
}

/* A request under way, and all that leads to its place being somebody
 * else's.
 */
static bool
under_way (struct race *r, uint64_t c, enum request_kind kind)
{
  if (r->variant >= 4)
    return false;
  before (r, WRITE, 0, 2 * c);
  before (r, FLUSH, 0, 0);
  then (r, 0, kind, 0, r->variant & 2 ? c : c / 2);
  then (r, 1, r->variant & 1 ? ZERO : TRIM, 0, 2 * c);
  then (r, 1, FLUSH, 0, 0);
  then (r, 1, WRITE, 3 * c, 2 * c);
  then (r, 1, FLUSH, 0, 0);
  then (r, 1, WRITE, 6 * c, 2 * c);
  return true;
}

static bool
read_reallocate (struct race *r, uint64_t c)
{
  return under_way (r, c, READ);
}

static bool
write_reallocate (struct race *r, uint64_t c)
{
  return under_way (r, c, WRITE);
}

/* Settling, too, waits for requests, but gives up.  After that others have to
 * wait for the same ones.
 */
static bool
read_settle_reallocate (struct race *r, uint64_t c)
{
  if (r->variant >= 2)
    return false;
  before (r, WRITE, 0, 2 * c);
  before (r, FLUSH, 0, 0);
  before (r, SETTLE, 0, 0);
  then (r, 0, READ, 0, c);
  then (r, 1, SETTLE, 0, 0);
  then (r, 1, r->variant ? ZERO : TRIM, 0, 2 * c);
  then (r, 1, FLUSH, 0, 0);
  then (r, 1, WRITE, 5 * c, 2 * c);
  return true;
}

/* The cache holds one table at most. */
static bool
eviction_write (struct race *r, uint64_t c)
{
  const uint64_t table = (c / (r->spec->extended ? 16 : 8)) * c;

  if (r->variant >= 3 || r->spec->size <= 2 * table)
    return false;
  r->l2_cache = 1;
  before (r, WRITE, 0, c);
  before (r, FLUSH, 0, 0);
  then (r, 0, r->variant == 2 ? TRIM : WRITE, r->variant ? 0 : c, 2 * c);
  then (r, 1, WRITE, table, c);
  then (r, 1, READ, 2 * table, c);
  then (r, 1, WRITE, table + c, c / 2);
  return true;
}

/* The file and its tables of counts have to grow. */
static bool
growth_write (struct race *r, uint64_t c)
{
  if (r->variant >= 4)
    return false;
  then (r, 0, WRITE, 4 * c, 8 * c);
  then (r, 0, WRITE, 14 * c, 30 * c);
  if (r->variant == 0)
    then (r, 1, WRITE, 60 * c, 4 * c);
  else if (r->variant == 3)
    then (r, 1, WRITE, 60 * c, 60 * c);
  else
    then (r, 1, WRITE, r->variant == 1 ? 3 * c : 0, c / 2);
  then (r, 1, FLUSH, 0, 0);
  return true;
}

static bool
settle_flush (struct race *r, uint64_t c)
{
  if (r->variant >= 4)
    return false;
  before (r, WRITE, 0, 4 * c);
  before (r, TRIM, 2 * c, c);
  if (r->variant & 1)
    before (r, FLUSH, 0, 0);
  before (r, SETTLE, 0, 0);
  then (r, 0, SETTLE, 0, 0);
  then (r, 0, SETTLE, 0, 0);
  if (r->variant < 2)
    then (r, 1, FLUSH, 0, 0);
  then (r, 1, WRITE, 4 * c, c);
  then (r, 1, TRIM, 0, 2 * c);
  if (r->variant < 2)
    then (r, 1, FLUSH, 0, 0);
  else
    then (r, 1, WRITE, 6 * c, c / 2);
  return true;
}

static bool
flush_flush (struct race *r, uint64_t c)
{
  if (r->variant >= 2)
    return false;
  before (r, WRITE, 0, c);
  if (r->variant)
    before (r, FLUSH, 0, 0);
  for (unsigned i = 0; i < 2; i++) {
    then (r, i, WRITE, (2 + i) * c, c / 2);
    then (r, i, FLUSH, 0, 0);
  }
  return true;
}

static bool
three_flushes (struct race *r, uint64_t c)
{
  if (r->variant >= 1)
    return false;
  for (unsigned i = 0; i < 3; i++) {
    then (r, i, WRITE, (2 + i) * c, c / 2);
    then (r, i, FLUSH, 0, 0);
  }
  return true;
}

static bool
failed_flush_write (struct race *r, uint64_t c)
{
  if (r->variant >= 5)
    return false;
  then (r, 0, WRITE, 0, c);
  then (r, 0, FLUSH, 0, 0);
  then (r, 1, WRITE, 2 * c, c / 2);
  then (r, 1, TRIM, 0, c);
  then (r, 1, FLUSH, 0, 0);
  then (r, 1, READ, 0, 4 * c);
  r->fault = (struct memory_fault) {
    .kind = MEMORY_FLUSH, .file = -1, .nth = 1 + r->variant, .error = EIO,
  };
  return true;
}

/* A commit that fails to write, and is tried again. */
static bool
failed_write_write (struct race *r, uint64_t c)
{
  if (r->variant >= 10)
    return false;
  then (r, 0, WRITE, 0, c);
  then (r, 0, FLUSH, 0, 0);
  then (r, 1, WRITE, 2 * c, c / 2);
  then (r, 1, FLUSH, 0, 0);
  r->fault = (struct memory_fault) {
    .kind = MEMORY_WRITE, .file = -1, .nth = 1 + r->variant / 2, .error = EIO,
    .landed = r->variant % 2 * 2,
  };
  return true;
}

/* The session's first changes, and the first users of a table. */
static bool
first_writes (struct race *r, uint64_t c)
{
  if (r->variant >= 3)
    return false;
  then (r, 0, WRITE, 0, c);
  then (r, 1, r->variant == 1 ? TRIM : WRITE, r->variant * c, c / 2);
  if (r->variant)
    then (r, 2, WRITE, 6 * c, c);
  return true;
}

/* A commit copies the tables while a first write moves another one, or the same
 * one, out of a snapshot.
 */
static bool
commit_first_write (struct race *r, uint64_t c)
{
  const uint64_t table = (c / (r->spec->extended ? 16 : 8)) * c;

  if (r->variant >= 3)
    return false;
  then (r, 0, WRITE, 0, c / 2);
  then (r, 0, FLUSH, 0, 0);
  if (r->variant == 2 || table >= r->spec->size)
    then (r, 1, WRITE, 2 * c, c / 2);
  else
    then (r, 1, r->variant ? ZERO : WRITE, table, r->variant ? c : c / 2);
  return true;
}

/* Requests that share a sector but no byte, where a sector changes as a whole:
 * it is encrypted.
 */
static bool
one_sector (struct race *r, uint64_t c)
{
  const uint64_t at = r->variant & 1 ? 0 : c;

  if (r->variant >= 4)
    return false;
  before (r, WRITE, 0, 2 * c);
  before (r, FLUSH, 0, 0);
  then (r, 0, WRITE, at + 40, 100);
  then (r, 1, READ, at + 200, 100);
  then (r, 1, r->variant & 2 ? ZERO : WRITE, at + 350, 7);
  then (r, 1, READ, at, 512);
  then (r, 2, READ, at + 400, 112);
  return true;
}

/* The data file is found to be empty where it soon is not. */
static bool
hole_zero_write (struct race *r, uint64_t c)
{
  if (r->variant >= 2)
    return false;
  then (r, 0, WRITE, 0, c / 8);
  then (r, 1, WRITE, c, c);
  then (r, 1, ZERO, c, c);
  r->request[1][1].flags = r->variant ? IMAGE_ZERO_UNMAP : 0;
  then (r, 1, WRITE, c + c / 4, c / 4);
  return true;
}

/* A cluster that is being written in place is let go of and found to be empty;
 * when it has been written to, it is zeroed, and gets a new place.
 */
static bool
write_hole_write (struct race *r, uint64_t c)
{
  if (r->variant >= 1)
    return false;
  before (r, WRITE, 3 * c, c);
  then (r, 0, WRITE, 3 * c + c / 2, c / 4);
  then (r, 1, ZERO, 3 * c, c);
  then (r, 1, WRITE, 2 * c, c / 8);
  then (r, 1, ZERO, 3 * c, c);
  then (r, 1, WRITE, 3 * c, c / 8);
  then (r, 1, READ, 3 * c, c);
  return true;
}

/* A cluster that is being written in place is zeroed, and has the same place
 * when it is next written to.
 */
static bool
write_zero_write (struct race *r, uint64_t c)
{
  if (r->variant >= 4)
    return false;
  before (r, WRITE, 3 * c, c);
  then (r, 0, WRITE, 3 * c + c / 2, c / 4);
  then (r, 0, READ, 3 * c + c / 2, c / 4);
  then (r, 1, ZERO, 3 * c, c);
  r->request[1][0].flags = r->variant & 1 ? IMAGE_ZERO_UNMAP : 0;
  then (r, 1, WRITE, 3 * c, c / 8);
  if (r->variant & 2)           /* others that wait, and for each other */
    then (r, 2, WRITE, 3 * c + c / 4, c / 8);
  return true;
}

static const struct {
  const char *name;
  bool (*build) (struct race *r, uint64_t c);
  const char *images[12];
} races[] = {
  { "trim-flush-allocate", trim_flush_allocate,
    { "mixed", "backing", "snapshot", "compressed", "extended-backing",
      "pair", "raw-full",
      "compress-snapshot" } },
  { "write-trim", write_trim,
    { "mixed", "backing", "compressed", "extended-backing", "v2-backing",
      "pair-backing", "raw-stale",
      "compress-snapshot" } },
  { "write-write", write_write,
    { "mixed", "backing", "snapshot", "compressed", "extended-backing",
      "v2-backing", "pair-extended", "raw-stale", "encrypted",
      "compress-snapshot" } },
  { "write-zero", write_zero,
    { "mixed", "backing", "compressed", "extended-backing", "pair-backing",
      "raw-stale" } },
  { "zero-write", zero_write,
    { "snapshot", "v2-backing", "extended-snapshot", "pair", "raw-extended",
      "raw-no-discard" } },
  { "two-cows-flush", two_cows_flush,
    { "backing", "compressed", "extended-snapshot", "pair-backing",
      "raw-stale",
      "compress-snapshot" } },
  { "read-reallocate", read_reallocate,
    { "mixed", "compressed", "extended", "v2", "snapshot", "pair",
      "raw-full", "encrypted-compressed",
      "compress-snapshot", "compress-1-bit" } },
  { "read-settle-reallocate", read_settle_reallocate, { "bitmaps" } },
  { "write-reallocate", write_reallocate,
    { "mixed", "compressed", "extended", "v2", "1-bit", "pair",
      "raw-full", "encrypted", "encrypted-raw",
      "compress-snapshot" } },
  { "eviction-write", eviction_write,
    { "empty", "snapshot", "pair", "raw-empty" } },
  { "growth-write", growth_write,
    { "blocks", "reftable", "pair-empty", "empty" } },
  { "settle-flush", settle_flush,
    { "mixed", "compressed", "snapshot", "4k", "pair", "raw-empty",
      "bitmaps", "bitmaps-pair", "bitmaps-raw" } },
  { "flush-flush", flush_flush,
    { "mixed", "snapshot", "pair", "raw-empty", "raw-full",
      "compress-snapshot" } },
  { "three-flushes", three_flushes, { "mixed", "pair" } },
  { "failed-flush-write", failed_flush_write,
    { "mixed", "pair", "raw-empty" } },
  { "failed-write-write", failed_write_write, { "mixed", "pair",
      "compress-snapshot" } },
  { "first-writes", first_writes,
    { "empty", "snapshot", "compressed-snapshot", "pair", "raw-empty",
      "1-bit", "bitmaps",
      "compress-snapshot" } },
  { "commit-first-write", commit_first_write,
    { "snapshot", "compressed-snapshot", "extended-snapshot", "empty",
      "pair" } },
  { "one-sector", one_sector,
    { "encrypted", "encrypted-extended", "encrypted-pair",
      "encrypted-raw" } },
  { "hole-zero-write", hole_zero_write,
    { "pair-empty", "pair-extended", "raw-empty", "raw-extended" } },
  { "write-hole-write", write_hole_write,
    { "pair-empty", "pair-extended", "raw-empty", "bitmaps-pair" } },
  { "write-zero-write", write_zero_write,
    { "pair", "pair-extended", "mixed", "extended", "raw-empty",
      "encrypted-pair" } },
};
#define RACES (sizeof races / sizeof races[0])

bool
race_next (struct race_cursor *at, struct race *r)
{
  for (; at->race < RACES; at->race++, at->image = 0)
    for (; races[at->race].images[at->image]; at->image++, at->variant = 0) {
      *r = (struct race) {
        .name = races[at->race].name, .variant = at->variant,
        .spec = crash_spec (races[at->race].images[at->image]),
      };
      if (races[at->race].build (r, UINT64_C (1) << r->spec->cluster_bits)) {
        at->variant++;
        return true;
      }
    }
  return false;
}

bool
race_make (struct race *r, const char *name)
{
  for (size_t i = 0; i < RACES; i++)
    if (strcmp (races[i].name, name) == 0) {
      r->name = races[i].name;
      return races[i].build (r, UINT64_C (1) << r->spec->cluster_bits);
    }
  return false;
}
