/* qcow2ext: the snapshot table, up to its limits.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Entries of all lengths that are allowed are read, to the last byte of the
 * file, and in few requests.  What is too long is refused.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "check.h"
#include "base/report.h"
#include "disk/snapshot.h"
#include "store-memory.h"

#define OFFSET 1024             /* of the table */
#define DISK UINT64_C (1000448)

static unsigned reads;

static void
count_reads (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  reads += before && op->kind == MEMORY_READ;
}

static void
drop_message (enum report_level level, const char *message)
{
  (void) level, (void) message;
}

/* Adds an entry behind the others; its numbers are made from i. */
static void
add (struct memory_file *f, unsigned i, uint32_t extra, const char *id,
     const char *name)
{
  const struct qcow2_snapshot s = {
    .l1_table_offset = be64_make (i + 1),
    .l1_size = be32_make (i + 2),
    .id_size = be16_make (strlen (id)),
    .name_size = be16_make (strlen (name)),
    .date_sec = be32_make (i + 3),
    .date_nsec = be32_make (i + 4),
    .vm_clock_nsec = be64_make (i + 5),
    .vm_state_size = be32_make (i + 6),
    .extra_data_size = be32_make (extra),
  };
  const be64 known[] = {
    be64_make ((UINT64_C (7) << 32) + i), be64_make (i + 8),
  };
  uint64_t pos = OFFSET;

  if (f->size > OFFSET)
    pos += (f->size - OFFSET + 7) & -UINT64_C (8);
  memory_file_write (f, &s, sizeof s, pos);
  pos += sizeof s;
  memory_file_resize (f, pos + extra);
  memory_file_write (f, known, extra < 16 ? extra : 16, pos);
  memory_file_write (f, id, strlen (id), pos + extra);
  memory_file_write (f, name, strlen (name), pos + extra + strlen (id));
}

static int
read_table (struct memory_file *f, uint32_t count,
            struct snapshot_list **list)
{
  const struct header h = {
    .size = DISK, .snapshots_offset = OFFSET, .nb_snapshots = count,
  };
  struct memory_log log;
  struct store *s;
  int r;

  memory_log_init (&log);
  log.hook = count_reads;
  reads = 0;
  s = store_memory_new (f, &log, MEMORY_IMAGE, false);
  r = snapshot_list_read (s, &h, list);
  store_close (s);
  memory_log_clear (&log);
  return r;
}

static void
check_snapshot (const struct snapshot *s, unsigned i, uint32_t extra,
                const char *id, const char *name)
{
  CHECK (s->l1_offset == i + 1 && s->l1_entries == i + 2);
  CHECK (s->date_sec == i + 3 && s->date_nsec == i + 4);
  CHECK (s->vm_clock_nsec == i + 5);
  CHECK (s->vm_state_size
         == (extra < 8 ? i + 6 : (UINT64_C (7) << 32) + i));
  CHECK (s->disk_size == (extra < 16 ? DISK : i + 8));
  CHECK (strcmp (s->id, id) == 0 && strcmp (s->name, name) == 0);
}

/* One entry with so much extra data, which ends with the file. */
static void
test_extra (uint32_t extra, int result)
{
  struct memory_file f = { 0 };
  struct snapshot_list *list;

  add (&f, 100, extra, "1", "first");
  CHECK (read_table (&f, 1, &list) == result);
  if (result == 0) {
    CHECK (list->count == 1 && list->bytes >= 40 + extra + 6);
    CHECK (list->bytes % 8 == 0 && list->bytes < 40 + extra + 6 + 8);
    check_snapshot (&list->snapshot[0], 100, extra, "1", "first");
    snapshot_list_free (list);
  }
  memory_file_resize (&f, f.size - 1);
  CHECK (read_table (&f, 1, &list) == -EINVAL);
  memory_file_free (&f);
}

/* A table of more than is read at once. */
static void
test_many (void)
{
  const unsigned count = 3000;
  char id[16], name[300] = "";
  struct memory_file f = { 0 };
  struct snapshot_list *list;

  memset (name, 'n', sizeof name - 1);
  for (unsigned i = 0; i < count; i++) {
    snprintf (id, sizeof id, "%u", i);
    add (&f, i, i % 25, id, name + i % sizeof name);
  }
  CHECK (read_table (&f, count + 20000, &list) == -EINVAL);
  CHECK (reads == 0);           /* the file cannot hold as many */
  CHECK (read_table (&f, count, &list) == 0);
  CHECK (reads <= f.size / 65536 + 1);
  CHECK (list->count == count);
  for (unsigned i = 0; i < count; i++) {
    snprintf (id, sizeof id, "%u", i);
    check_snapshot (&list->snapshot[i], i, i % 25, id,
                    name + i % sizeof name);
  }
  CHECK (snapshot_find (list, "2999") == &list->snapshot[2999]);
  CHECK (snapshot_find (list, name) == &list->snapshot[0]);
  CHECK (snapshot_find (list, "") == &list->snapshot[299]);
  CHECK (snapshot_find (list, "3000") == NULL);
  snapshot_list_free (list);
  memory_file_free (&f);
}

/* The table may have 64 MiB.  It lies in a hole, as far as it is not read. */
static void
test_large (void)
{
  const uint64_t max = QCOW2_MAX_SNAPSHOT_BYTES;
  const uint32_t entry = 40 + 1024 + 2 * 65535 + 2; /* a multiple of 8 */
  const unsigned count = max / entry;
  struct memory_file f = { 0 };
  struct snapshot_list *list;
  struct qcow2_snapshot s = {
    .id_size = be16_make (65535), .name_size = be16_make (65535),
    .extra_data_size = be32_make (1024),
  };

  CHECK (entry % 8 == 0);
  memory_file_resize (&f, OFFSET + max + entry);
  for (unsigned i = 0; i < count; i++)
    memory_file_write (&f, &s, sizeof s, OFFSET + (uint64_t) i * entry);
  CHECK (read_table (&f, count, &list) == 0);
  CHECK (list->bytes == (uint64_t) count * entry);
  snapshot_list_free (list);
  memory_file_write (&f, &s, sizeof s, OFFSET + (uint64_t) count * entry);
  CHECK (read_table (&f, count + 1, &list) == -EINVAL);
  memory_file_free (&f);
}

/* Only how long the table is counts, not where it lies. */
static void
test_far (void)
{
  const struct header h = {
    .size = DISK, .snapshots_offset = QCOW2_MAX_SNAPSHOT_BYTES / 2,
    .nb_snapshots = 1,
  };
  const struct qcow2_snapshot entry = { .l1_size = be32_make (1) };
  struct memory_file f = { 0 };
  struct snapshot_list *list;
  struct store *s;

  memory_file_write (&f, &entry, sizeof entry, h.snapshots_offset);
  s = store_memory_new (&f, NULL, MEMORY_IMAGE, false);
  CHECK (snapshot_list_read (s, &h, &list) == 0);
  CHECK (list->count == 1 && list->bytes == sizeof entry);
  snapshot_list_free (list);
  store_close (s);
  memory_file_free (&f);
}

int
main (void)
{
  struct memory_file empty = { 0 };
  struct snapshot_list *list;

  report_set_sink (drop_message);
  CHECK (read_table (&empty, 0, &list) == 0 && list->count == 0);
  CHECK (list->bytes == 0);
  snapshot_list_free (list);
  memory_file_free (&empty);

  for (uint32_t extra = 0; extra < 40; extra++)
    test_extra (extra, 0);
  test_extra (QCOW2_MAX_SNAPSHOT_EXTRA, 0);
  test_extra (QCOW2_MAX_SNAPSHOT_EXTRA + 1, -EINVAL);
  test_many ();
  test_large ();
  test_far ();
  return EXIT_SUCCESS;
}
