/* qcow2ext: an image in memory, with a model of what the guest wrote.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef WORLD_H
#define WORLD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bitmap-copy.h"
#include "files.h"
#include "history.h"
#include "image-checker.h"
#include "image-maker.h"
#include "store-memory.h"
#include "workload.h"

struct flushed {
  size_t begin;                 /* event */
  size_t end;                   /* position in the log */
};

struct world {
  const struct image_spec *spec;
  struct memory_file start[MEMORY_FILES], live[MEMORY_FILES];
  uint8_t *initial;             /* the guest's disk at the start */
  struct memory_log log;
  struct files files;
  struct image *image;
  unsigned initial_leaks;
  uint64_t size_at_open;        /* of the image file; no shorter later */
  struct bitmap_copy *bitmaps;  /* at the start; NULL: there are none */

  pthread_mutex_t lock;         /* the model */
  size_t events;
  struct history *sector;
  uint64_t sectors;
  uint32_t next_number;
  struct flushed *flushed;
  size_t flushes;
  int first_error;              /* of a request; 0: none */
  unsigned failed_requests;
  bool expect_errors;           /* something is made to fail */
  enum memory_kind fault_kind;  /* what, if so */
  bool fault_lasts;

  /* The pause that is armed. */
  const struct step *step, *pausing, *others;
  unsigned pause_left;
  pthread_t paused_thread, other_thread;
  bool other_runs;
  unsigned pauses_met;
  size_t pause_begin;           /* operations before the last such step */

  char failure[512];            /* empty: all is well */
};

void world_open (struct world *w, const struct image_spec *spec,
                 size_t l2_cache);
void world_close (struct world *w); /* settles; checks what is left */
void world_abandon (struct world *w); /* closes without settling */
void world_free (struct world *w);
int world_request (struct world *w, const struct request *request);
void world_step (struct world *w, const struct step *step);
void world_fail (struct world *w, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

/* To standard error: all operations; what a step is about to do. */
void world_show_log (const struct world *w);
void world_show_step (const struct world *w, const struct step *s);

/* Has the raw data file by itself to show what the guest sees?  Not where it
 * held something else from the beginning and was not mapped; nor where a write
 * failed halfway and nothing could be done about it.
 */
bool world_raw_counts (const struct world *w, const struct checker *c,
                       uint64_t sector);

/* A sector of a file; zeros, if the file does not have it. */
const uint8_t *file_sector (const struct memory_file *f, uint64_t i);

/* What has to come back does so within this, however slow the machine. */
extern uint64_t crash_hang_ns;

#endif /* WORLD_H */
