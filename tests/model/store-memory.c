/* qcow2ext: a store in memory that records what is done to it.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "need.h"
#include "store-memory.h"

struct store_memory {
  struct store store;
  struct memory_file *file;
  struct memory_log *log;       /* or NULL */
  pthread_mutex_t own_lock;     /* where there is no log */
  unsigned which;
  bool no_discard;
};

_Thread_local bool memory_in_engine;
struct memory_log *memory_alloc_log;

const char *
memory_kind_name (enum memory_kind kind)
{
  static const char *const names[MEMORY_KINDS] = {
    [MEMORY_READ] = "read", [MEMORY_WRITE] = "write", [MEMORY_ZERO] = "zero",
    [MEMORY_DISCARD] = "discard", [MEMORY_RESIZE] = "resize",
    [MEMORY_FLUSH] = "flush", [MEMORY_ALLOC] = "allocation",
  };

  return names[kind];
}

/* --- files --- */

static uint64_t
sectors (uint64_t bytes)
{
  return (bytes + MEMORY_SECTOR - 1) / MEMORY_SECTOR;
}

void
memory_file_free (struct memory_file *f)
{
  free (f->bytes);
  free (f->full);
  memset (f, 0, sizeof *f);
}

void
memory_files_free (struct memory_file file[MEMORY_FILES])
{
  for (unsigned i = 0; i < MEMORY_FILES; i++)
    memory_file_free (&file[i]);
}

static void
make_room (struct memory_file *f, uint64_t size)
{
  uint64_t room = f->room ? f->room : 65536;

  if (size <= f->room)
    return;
  while (room < size)
    room *= 2;
  f->bytes = need (realloc (f->bytes, room));
  f->full = need (realloc (f->full, room / MEMORY_SECTOR));
  memset (f->bytes + f->room, 0, room - f->room);
  memset (f->full + f->room / MEMORY_SECTOR, 0,
          (room - f->room) / MEMORY_SECTOR);
  f->room = room;
}

void
memory_file_resize (struct memory_file *f, uint64_t size)
{
  make_room (f, size);
  if (size < f->size) {
    memset (f->bytes + size, 0, f->size - size);
    memset (f->full + sectors (size), 0, sectors (f->size) - sectors (size));
  }
  f->size = size;
}

void
memory_file_copy (struct memory_file *to, const struct memory_file *from)
{
  memory_file_resize (to, from->size);
  if (from->size == 0)
    return;
  memcpy (to->bytes, from->bytes, from->size);
  memcpy (to->full, from->full, sectors (from->size));
}

void
memory_file_write (struct memory_file *f, const void *data, uint64_t length,
                   uint64_t offset)
{
  if (length == 0)
    return;
  if (offset + length > f->size)
    memory_file_resize (f, offset + length);
  memcpy (f->bytes + offset, data, length);
  memset (f->full + offset / MEMORY_SECTOR, 1,
          sectors (offset + length) - offset / MEMORY_SECTOR);
}

void
memory_file_zero (struct memory_file *f, uint64_t length, uint64_t offset)
{
  if (offset >= f->size)
    return;
  if (length > f->size - offset)
    length = f->size - offset;
  memset (f->bytes + offset, 0, length);
}

/* Sectors that are wholly within the range become holes. */
static void
punch (struct memory_file *f, uint64_t length, uint64_t offset)
{
  uint64_t first, end;

  memory_file_zero (f, length, offset);
  if (offset >= f->size)
    return;
  first = sectors (offset);
  end = offset + length >= f->size ? sectors (f->size)
                                   : (offset + length) / MEMORY_SECTOR;
  if (end > first)
    memset (f->full + first, 0, end - first);
}

void
memory_file_apply (struct memory_file *f, const struct memory_op *op)
{
  switch (op->kind) {
  case MEMORY_WRITE:
    memory_file_write (f, op->data, op->length, op->offset);
    break;
  case MEMORY_ZERO:
    memory_file_zero (f, op->length, op->offset);
    break;
  case MEMORY_DISCARD:
    punch (f, op->length, op->offset);
    break;
  case MEMORY_RESIZE:
    memory_file_resize (f, op->offset);
    break;
  default:
    break;
  }
}

/* Would it make the file larger than the disk that it is on? */
static bool
is_full (const struct memory_file *f, const struct memory_op *op)
{
  uint64_t end = op->offset;

  if (f->limit == 0 || (op->kind != MEMORY_WRITE && op->kind != MEMORY_RESIZE))
    return false;
  if (op->kind == MEMORY_WRITE)
    end += op->length;
  return end > f->size && end > f->limit;
}

/* --- the log --- */

void
memory_log_init (struct memory_log *log)
{
  memset (log, 0, sizeof *log);
  pthread_mutex_init (&log->lock, NULL);
}

void
memory_log_clear (struct memory_log *log)
{
  for (size_t i = 0; i < log->count; i++)
    free (log->op[i].data);
  free (log->op);
  pthread_mutex_destroy (&log->lock);
  memset (log, 0, sizeof *log);
}

size_t
memory_log_count (struct memory_log *log)
{
  size_t count;

  pthread_mutex_lock (&log->lock);
  count = log->count;
  pthread_mutex_unlock (&log->lock);
  return count;
}

static void
record (struct memory_log *log, const struct memory_op *op)
{
  struct memory_op *copy;

  if (log->count == log->room) {
    log->room = log->room ? 2 * log->room : 256;
    log->op = need (realloc (log->op, log->room * sizeof *log->op));
  }
  copy = &log->op[log->count++];
  *copy = *op;
  if (op->data) {
    copy->data = need (malloc (op->length));
    memcpy (copy->data, op->data, op->length);
  }
}

static bool
fails_now (struct memory_log *log, const struct memory_op *op)
{
  struct memory_fault *f = &log->fault;

  if (f->nth == 0 || f->kind != op->kind
      || (f->file >= 0 && (unsigned) f->file != op->file))
    return false;
  if (f->nth > 1) {
    f->nth--;
    return false;
  }
  if (!f->lasting)
    f->nth = 0;
  log->faults_met++;
  return true;
}

bool
memory_alloc_fails (void)
{
  static const struct memory_op op = { .kind = MEMORY_ALLOC };
  struct memory_log *log = memory_alloc_log;
  bool fails;

  if (log == NULL || !memory_in_engine)
    return false;
  memory_in_engine = false;
  pthread_mutex_lock (&log->lock);
  fails = fails_now (log, &op);
  pthread_mutex_unlock (&log->lock);
  memory_in_engine = true;
  return fails;
}

/* --- the store --- */

static pthread_mutex_t *
lock (struct store_memory *s)
{
  pthread_mutex_t *mutex = s->log ? &s->log->lock : &s->own_lock;

  pthread_mutex_lock (mutex);
  return mutex;
}

/* What a store does for the engine is not the engine's. */
static void
put_back (bool *in_engine)
{
  memory_in_engine = *in_engine;
}
#define LEAVE_ENGINE_FOR_SCOPE()                                        \
  __attribute__ ((cleanup (put_back)))                                  \
  bool was_in_engine = memory_in_engine;                                \
  memory_in_engine = false

/* All operations but reading. */
static int
change (struct store_memory *s, struct memory_op op)
{
  struct memory_log *log = s->log;
  pthread_mutex_t *mutex;
  int r = 0;
  LEAVE_ENGINE_FOR_SCOPE ();

  op.file = s->which;
  if (log && log->hook)
    log->hook (log->opaque, &op, true);

  mutex = lock (s);
  if (s->store.fixed_size
      && (op.kind == MEMORY_RESIZE
          || (op.kind == MEMORY_WRITE
              && op.offset + op.length > s->file->size)))
    r = op.kind == MEMORY_RESIZE ? -ENOTSUP : -ENOSPC;
  else if (log && was_in_engine && fails_now (log, &op)) {
    r = -log->fault.error;
    if (op.kind == MEMORY_FLUSH) {
      op.failed = true;
      record (log, &op);
    }
    else if (op.kind == MEMORY_WRITE
             && (log->fault.landed == 2
                 || (log->fault.landed == 1
                     && op.length >= 2 * MEMORY_SECTOR))) {
      if (log->fault.landed == 1)
        op.length =
          ((op.offset + op.length / 2) & -MEMORY_SECTOR) - op.offset;
      memory_file_apply (s->file, &op);
      record (log, &op);
    }
  }
  else if (is_full (s->file, &op))
    r = -ENOSPC;
  else {
    if (log && log->in_halves && op.kind == MEMORY_WRITE) {
      struct memory_op half = op;

      half.length /= 2;
      memory_file_apply (s->file, &half);
      pthread_mutex_unlock (mutex);
      log->hook (log->opaque, &op, true);
      pthread_mutex_lock (mutex);
    }
    memory_file_apply (s->file, &op);
    if (log)
      record (log, &op);
  }
  pthread_mutex_unlock (mutex);

  if (r == 0 && log && log->hook)
    log->hook (log->opaque, &op, false);
  return r;
}

static int
memory_pread (struct store *store, void *buf, size_t count, uint64_t offset)
{
  struct store_memory *s = (struct store_memory *) store;
  const struct memory_op op = {
    .kind = MEMORY_READ, .file = s->which, .offset = offset, .length = count
  };
  struct memory_log *log = s->log;
  pthread_mutex_t *mutex;
  uint64_t n = 0;
  int r = 0;
  LEAVE_ENGINE_FOR_SCOPE ();

  if (log && log->hook)
    log->hook (log->opaque, &op, true);
  mutex = lock (s);
  if (log && was_in_engine && fails_now (log, &op))
    r = -log->fault.error;
  else {
    if (offset < s->file->size)
      n = s->file->size - offset;
    if (n > count)
      n = count;
    if (n)
      memcpy (buf, s->file->bytes + offset, n);
    memset ((uint8_t *) buf + n, 0, count - n);
  }
  pthread_mutex_unlock (mutex);
  if (r == 0 && log && log->hook)
    log->hook (log->opaque, &op, false);
  return r;
}

static int
memory_get_size (struct store *store, uint64_t *size)
{
  struct store_memory *s = (struct store_memory *) store;
  pthread_mutex_t *mutex = lock (s);

  *size = s->file->size;
  pthread_mutex_unlock (mutex);
  return 0;
}

static int
memory_extent (struct store *store, uint64_t offset, uint64_t *end,
               unsigned *type)
{
  struct store_memory *s = (struct store_memory *) store;
  const struct memory_file *f = s->file;
  pthread_mutex_t *mutex = lock (s);
  const uint64_t last = sectors (f->size);
  uint64_t i = offset / MEMORY_SECTOR;
  const bool full = i < last && f->full[i];

  *type = full ? EXTENT_DATA : EXTENT_HOLE | EXTENT_ZERO;
  while (i < last && (bool) f->full[i] == full)
    i++;
  *end = i >= last && !full ? UINT64_MAX : i * MEMORY_SECTOR;
  pthread_mutex_unlock (mutex);
  return 0;
}

static int
memory_cache (struct store *store, uint64_t count, uint64_t offset)
{
  (void) store, (void) count, (void) offset;
  return 0;
}

static int
memory_pwrite (struct store *store, const void *buf, size_t count,
               uint64_t offset)
{
  return change ((struct store_memory *) store,
                 (struct memory_op) { .kind = MEMORY_WRITE,
                                      .offset = offset, .length = count,
                                      .data = (uint8_t *) buf });
}

static int
memory_zero (struct store *store, uint64_t count, uint64_t offset,
             unsigned flags)
{
  struct store_memory *s = (struct store_memory *) store;

  if (s->no_discard && (flags & STORE_ZERO_FAST))
    return -ENOTSUP;
  return change (s, (struct memory_op) {
      .kind = (flags & STORE_ZERO_PUNCH) && !s->no_discard ? MEMORY_DISCARD
                                                           : MEMORY_ZERO,
      .offset = offset, .length = count });
}

static int
memory_discard (struct store *store, uint64_t count, uint64_t offset)
{
  struct store_memory *s = (struct store_memory *) store;

  if (s->no_discard)
    return -ENOTSUP;
  return change (s, (struct memory_op) { .kind = MEMORY_DISCARD,
                                         .offset = offset,
                                         .length = count });
}

static int
memory_flush (struct store *store)
{
  return change ((struct store_memory *) store,
                 (struct memory_op) { .kind = MEMORY_FLUSH });
}

static int
memory_resize (struct store *store, uint64_t size)
{
  return change ((struct store_memory *) store,
                 (struct memory_op) { .kind = MEMORY_RESIZE,
                                      .offset = size });
}

static void
memory_close (struct store *store)
{
  struct store_memory *s = (struct store_memory *) store;

  pthread_mutex_destroy (&s->own_lock);
  free (store->name);
  free (s);
}

static const struct store_ops memory_ops = {
  .pread = memory_pread,
  .get_size = memory_get_size,
  .extent = memory_extent,
  .cache = memory_cache,
  .pwrite = memory_pwrite,
  .zero = memory_zero,
  .discard = memory_discard,
  .flush = memory_flush,
  .resize = memory_resize,
  .close = memory_close,
};

struct store *
store_memory_new (struct memory_file *file, struct memory_log *log,
                  unsigned which, bool no_discard)
{
  static const char *const names[MEMORY_FILES] = {
    "image", "data file", "backing file"
  };
  struct store_memory *s = need (calloc (1, sizeof *s));

  s->store.ops = &memory_ops;
  s->store.name = need (strdup (names[which]));
  s->file = file;
  s->log = log;
  s->which = which;
  s->no_discard = no_discard;
  pthread_mutex_init (&s->own_lock, NULL);
  return &s->store;
}
