/* qcow2ext: a store in memory that records what is done to it.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A memory_file holds bytes and belongs to the test; a store over it belongs
 * to the engine, like any other.  All stores of one image share a memory_log:
 * one ordered list of everything that changes or flushes a file, which is
 * what the states that a disk may show after a crash are made of.
 *
 * A change is recorded and becomes visible in one step.  Hooks are called
 * without any lock, before and after that step, and may wait: that is how a
 * test stops one request while it lets others run.
 */

#ifndef STORE_MEMORY_H
#define STORE_MEMORY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/store.h"

#define MEMORY_SECTOR 512

/* Files that one log covers. */
#define MEMORY_IMAGE 0
#define MEMORY_DATA 1
#define MEMORY_BACKING 2
#define MEMORY_FILES 3

enum memory_kind {
  MEMORY_READ,                  /* hooks and faults only; not recorded */
  MEMORY_WRITE,
  MEMORY_ZERO,
  MEMORY_DISCARD,
  MEMORY_RESIZE,
  MEMORY_FLUSH,
  MEMORY_ALLOC,                 /* faults only: the engine's allocations */
  MEMORY_KINDS,
};

const char *memory_kind_name (enum memory_kind kind);

struct memory_op {
  enum memory_kind kind;
  unsigned file;                /* MEMORY_IMAGE... */
  bool failed;                  /* a flush that failed */
  uint64_t offset, length;      /* RESIZE: offset is the new size */
  uint8_t *data;                /* WRITE only */
};

struct memory_file {
  uint8_t *bytes;
  uint64_t size, room;          /* bytes behind size are zero */
  uint8_t *full;                /* a flag for each sector: not a hole */
  uint64_t limit;               /* it can not grow beyond; 0: no limit */
};

/* The nth (from 1) operation of a kind, in the file or in any, fails. */
struct memory_fault {
  enum memory_kind kind;
  int file;                     /* -1: any */
  unsigned nth;                 /* 0: none fails */
  int error;                    /* a positive errno */
  int landed;                   /* a write leaves behind: 0 nothing, 1 its
                                   first half, 2 all of it */
  bool lasting;                 /* and so do all that come after it */
};

struct memory_log {
  pthread_mutex_t lock;         /* guards all that follows, and the files */
  struct memory_op *op;
  size_t count, room;
  struct memory_fault fault;
  unsigned faults_met;
  bool in_halves;               /* a write becomes visible in two steps, with
                                   the hook called in between */

  /* "before" or after the operation has taken place. */
  void (*hook) (void *opaque, const struct memory_op *op, bool before);
  void *opaque;
};

/* Does this thread run the engine's code, and not that of the tests?  Only
 * then something is made to fail.
 */
extern _Thread_local bool memory_in_engine;

/* Called for each allocation if the program wraps malloc. */
bool memory_alloc_fails (void);

/* The log whose fault concerns allocations. */
extern struct memory_log *memory_alloc_log;

void memory_log_init (struct memory_log *log);
void memory_log_clear (struct memory_log *log);
size_t memory_log_count (struct memory_log *log);

void memory_file_free (struct memory_file *f);
void memory_files_free (struct memory_file file[MEMORY_FILES]);
void memory_file_resize (struct memory_file *f, uint64_t size);
void memory_file_copy (struct memory_file *to, const struct memory_file *from);
void memory_file_write (struct memory_file *f, const void *data,
                        uint64_t length, uint64_t offset);
void memory_file_zero (struct memory_file *f, uint64_t length,
                       uint64_t offset);

/* Applies a recorded change. */
void memory_file_apply (struct memory_file *f, const struct memory_op *op);

/* A store over a file.  Without a log nothing is recorded.  no_discard: it
 * can not punch holes.
 */
struct store *store_memory_new (struct memory_file *file,
                                struct memory_log *log, unsigned which,
                                bool no_discard);

#endif /* STORE_MEMORY_H */
