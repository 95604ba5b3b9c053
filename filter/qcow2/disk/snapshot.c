/* qcow2ext: internal snapshots.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "disk/snapshot.h"

#define bad(fmt, ...)                                                   \
  (report_error ("%s: snapshot table: " fmt, store->name, ##__VA_ARGS__), \
   -EINVAL)

/* How much of the table is read at once: the image may be far away. */
#define CHUNK 65536

/* Where the walk over the table stands. */
struct cursor {
  struct store *store;
  uint64_t file_size;
  uint64_t start;               /* of the table */
  uint64_t pos;                 /* of the next byte */
  uint64_t chunk_pos;           /* of what is in chunk */
  size_t chunk_len;
  uint8_t chunk[CHUNK];
};

/* Reads len bytes at the cursor and moves it behind them. */
static int
take (struct cursor *c, void *buf, size_t len)
{
  const struct store *store = c->store;
  int r;

  if (c->pos > c->file_size || len > c->file_size - c->pos)
    return bad ("it runs past the end of the file");
  if (c->pos + len - c->start > QCOW2_MAX_SNAPSHOT_BYTES)
    return bad ("it is larger than %" PRIu64 " bytes",
                QCOW2_MAX_SNAPSHOT_BYTES);
  while (len > 0) {
    const uint64_t in_chunk = c->pos - c->chunk_pos;
    size_t n;

    if (c->pos < c->chunk_pos || in_chunk >= c->chunk_len) {
      const uint64_t left = c->file_size - c->pos;

      c->chunk_pos = c->pos;
      c->chunk_len = left < CHUNK ? left : CHUNK;
      r = store_pread (c->store, c->chunk, c->chunk_len, c->pos);
      if (r < 0) {
        report_error ("%s: the snapshot table cannot be read: %s",
                      store->name, strerror (-r));
        return r;
      }
      continue;
    }
    n = c->chunk_len - in_chunk < len ? c->chunk_len - in_chunk : len;
    memcpy (buf, c->chunk + in_chunk, n);
    buf = (uint8_t *) buf + n;
    c->pos += n;
    len -= n;
  }
  return 0;
}

static int
take_string (struct cursor *c, size_t len, char **string)
{
  *string = malloc (len + 1);
  if (*string == NULL)
    return -ENOMEM;
  (*string)[len] = '\0';
  return len ? take (c, *string, len) : 0;
}

static int
read_snapshot (struct cursor *c, const struct header *h, struct snapshot *s)
{
  const struct store *store = c->store;
  struct qcow2_snapshot disk;
  uint8_t extra[QCOW2_MAX_SNAPSHOT_EXTRA] = { 0 };
  struct qcow2_snapshot_extra known;
  size_t extra_size;
  int r;

  if ((r = take (c, &disk, sizeof disk)) < 0)
    return r;
  extra_size = be32_get (disk.extra_data_size);
  if (extra_size > sizeof extra)
    return bad ("an entry has too much extra data (%zu bytes, at most %zu "
                "are allowed)", extra_size, sizeof extra);
  if (extra_size && (r = take (c, extra, extra_size)) < 0)
    return r;

  s->l1_offset = be64_get (disk.l1_table_offset);
  s->l1_entries = be32_get (disk.l1_size);
  s->date_sec = be32_get (disk.date_sec);
  s->date_nsec = be32_get (disk.date_nsec);
  s->vm_clock_nsec = be64_get (disk.vm_clock_nsec);
  s->vm_state_size = be32_get (disk.vm_state_size);
  s->disk_size = h->size;
  memcpy (&known, extra, sizeof known);
  if (extra_size >= sizeof known.vm_state_size)
    s->vm_state_size = be64_get (known.vm_state_size);
  if (extra_size >= sizeof known)
    s->disk_size = be64_get (known.disk_size);

  if ((r = take_string (c, be16_get (disk.id_size), &s->id)) < 0
      || (r = take_string (c, be16_get (disk.name_size), &s->name)) < 0)
    return r;
  c->pos += -(c->pos - c->start) & 7;
  return 0;
}

int
snapshot_list_read (struct store *store, const struct header *h,
                    struct snapshot_list **result)
{
  CLEANUP_FREE struct cursor *c = calloc (1, sizeof *c);
  struct snapshot_list *list;
  int r;

  if (c == NULL)
    return -ENOMEM;
  c->store = store;
  c->start = c->pos = h->snapshots_offset;
  r = store_get_size (store, &c->file_size);
  if (r < 0)
    return r;
  /* Before any allocation: the file must be able to hold that many. */
  if (h->nb_snapshots
      && (c->start > c->file_size
          || h->nb_snapshots > (c->file_size - c->start)
             / sizeof (struct qcow2_snapshot)))
    return bad ("it runs past the end of the file (%" PRIu32 " snapshots)",
                h->nb_snapshots);

  list = calloc (1, sizeof *list + h->nb_snapshots * sizeof (struct snapshot));
  if (list == NULL)
    return -ENOMEM;
  while (list->count < h->nb_snapshots) {
    r = read_snapshot (c, h, &list->snapshot[list->count++]);
    if (r < 0) {
      snapshot_list_free (list);
      return r;
    }
  }
  list->bytes = c->pos - c->start;
  *result = list;
  return 0;
}

void
snapshot_list_free (struct snapshot_list *list)
{
  if (list == NULL)
    return;
  for (size_t i = 0; i < list->count; i++) {
    free (list->snapshot[i].id);
    free (list->snapshot[i].name);
  }
  free (list);
}

const struct snapshot *
snapshot_find (const struct snapshot_list *list, const char *id_or_name)
{
  for (size_t i = 0; i < list->count; i++)
    if (strcmp (list->snapshot[i].id, id_or_name) == 0)
      return &list->snapshot[i];
  for (size_t i = 0; i < list->count; i++)
    if (strcmp (list->snapshot[i].name, id_or_name) == 0)
      return &list->snapshot[i];
  return NULL;
}
