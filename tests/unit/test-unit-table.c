/* qcow2ext: tables on disk: where they may lie, and what is read of them.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A table is looked at in parts of 64 KiB.  Behind an empty part, a hole of
 * the file is skipped, and no entry with it.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "check.h"
#include "base/report.h"
#include "disk/table.h"
#include "store-memory.h"

#define PART 65536              /* bytes that are read at once */
#define PER_PART (PART / 8)
#define OFFSET 512              /* where the table is */
#define PARTS 64
#define ENTRIES (PARTS * PER_PART)

static unsigned reads;
static uint64_t reads_end;      /* of the last byte that was asked for */

static void
count_reads (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  if (!before || op->kind != MEMORY_READ)
    return;
  reads++;
  if (op->offset + op->length > reads_end)
    reads_end = op->offset + op->length;
}

/* What is seen of a table. */
struct seen {
  uint64_t index[8];
  unsigned count;
  unsigned stop_after;          /* 0: goes on */
};

static int
see (void *opaque, uint64_t index, uint64_t entry)
{
  struct seen *s = opaque;

  CHECK (entry == index + 1);
  CHECK (s->count < 8);
  s->index[s->count++] = index;
  return s->count == s->stop_after ? 77 : 0;
}

static void
put_entry (struct memory_file *f, uint64_t index)
{
  const be64 entry = be64_make (index + 1);

  memory_file_write (f, &entry, sizeof entry, OFFSET + index * 8);
}

static void
check_read (struct store *s, uint64_t entries, const uint64_t *index,
            unsigned count)
{
  uint64_t found = 0;
  be64 *table;

  reads_end = 0;
  CHECK (table_read (s, OFFSET, entries, &table) == 0);
  CHECK (reads_end <= OFFSET + entries * 8);
  for (uint64_t i = 0; i < entries; i++) {
    const uint64_t entry = be64_get (table[i]);

    if (entry == 0)
      continue;
    CHECK (found < count && index[found] == i && entry == i + 1);
    found++;
  }
  CHECK (found == count);
  free (table);
}

static void
test_entries (struct store *s, struct memory_file *f,
              struct memory_log *log)
{
  /* In the first part there is nothing, in the second its ends, then nothing
   * in a part that is no hole, then one behind a hole, and the last one.
   */
  static const uint64_t index[] = {
    PER_PART, 2 * PER_PART - 1, 3 * PER_PART + 5, 40 * PER_PART + 77,
    ENTRIES - 1,
  };
  static const uint8_t zeros[PART];
  const unsigned count = sizeof index / sizeof index[0];
  struct seen seen = { 0 };

  memory_file_write (f, zeros, PART, OFFSET);
  memory_file_write (f, zeros, PART, OFFSET + 2 * PART);
  for (unsigned i = 0; i < count; i++)
    put_entry (f, index[i]);

  reads = 0;
  CHECK (table_walk (s, OFFSET, ENTRIES, see, &seen) == 0);
  CHECK (seen.count == count);
  CHECK (memcmp (seen.index, index, sizeof index) == 0);
  CHECK (reads < 10);           /* and not 64 */
  check_read (s, ENTRIES, index, count);

  /* Of a part of the table nothing behind it is seen. */
  seen.count = 0;
  CHECK (table_walk (s, OFFSET, ENTRIES - 1, see, &seen) == 0);
  CHECK (seen.count == count - 1);
  check_read (s, ENTRIES - 1, index, count - 1);
  seen.count = 0;
  CHECK (table_walk (s, OFFSET, 2 * PER_PART, see, &seen) == 0);
  CHECK (seen.count == 2);
  seen.count = 0;
  CHECK (table_walk (s, OFFSET, 0, see, &seen) == 0 && seen.count == 0);
  check_read (s, 0, index, 0);

  /* What lies past the end of the file is empty, and a hole. */
  reads = 0;
  CHECK (table_walk (s, OFFSET + (UINT64_C (1) << 40), ENTRIES, see, &seen)
         == 0);
  CHECK (seen.count == 0 && reads == 1);

  seen = (struct seen) { .stop_after = 2 };
  CHECK (table_walk (s, OFFSET, ENTRIES, see, &seen) == 77);
  CHECK (seen.count == 2);
  log->fault = (struct memory_fault) {
    .kind = MEMORY_READ, .nth = 2, .error = EIO
  };
  memory_in_engine = true;
  CHECK (table_walk (s, OFFSET, ENTRIES, see, &seen) == -EIO);
  memory_in_engine = false;
}

/* A hole that ends within an entry, as it may where a store knows no better. */
static void
test_end_of_hole (struct store *s, struct memory_file *f)
{
  const uint64_t at = OFFSET - 4, index = PER_PART + 78 * 64;
  const be64 entry = be64_make (index + 1);
  struct seen seen = { 0 };

  CHECK ((at + index * 8) % MEMORY_SECTOR == MEMORY_SECTOR - 4);
  memory_file_resize (f, 0);
  memory_file_write (f, &entry, sizeof entry, at + index * 8);
  f->full[(at + index * 8) / MEMORY_SECTOR] = 0;
  CHECK (table_walk (s, at, ENTRIES, see, &seen) == 0);
  CHECK (seen.count == 1 && seen.index[0] == index);
}

static void
drop_message (enum report_level level, const char *message)
{
  (void) level, (void) message;
}

static void
test_places (const struct store *s)
{
  static const struct {
    unsigned cluster_bits;
    uint64_t offset, count, size, max;
    int result;
  } cases[] = {
    { 9, 512, 64, 8, 512, 0 },
    { 9, 512, 65, 8, 512, -EINVAL },
    { 9, 512, UINT64_C (1) << 61, 8, UINT64_MAX, -EINVAL },
    { 9, 512, 0, 8, 0, 0 },
    { 16, 65536, 1, 8, 512, 0 },
    { 16, 65536 + 512, 1, 8, 512, -EINVAL },
    { 16, 65536 + 1, 1, 8, 512, -EINVAL },
    { 9, INT64_MAX - 511, 511, 1, 512, 0 },
    { 9, INT64_MAX - 511, 512, 1, 512, -EINVAL },
    { 9, -UINT64_C (512), 512, 1, 512, -EINVAL },
  };

  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    CHECK (table_check_place (s, cases[i].cluster_bits, "table",
                              cases[i].offset, cases[i].count, cases[i].size,
                              cases[i].max) == cases[i].result);
}

int
main (void)
{
  struct memory_file file = { 0 };
  struct memory_log log;
  struct store *s;

  report_set_sink (drop_message);
  memory_log_init (&log);
  log.hook = count_reads;
  s = store_memory_new (&file, &log, MEMORY_IMAGE, false);
  test_places (s);
  test_entries (s, &file, &log);
  test_end_of_hole (s, &file);
  store_close (s);
  memory_log_clear (&log);
  memory_file_free (&file);
  return EXIT_SUCCESS;
}
