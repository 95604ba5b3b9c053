/* qcow2ext: what a disk may show after a crash.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A world is an image in memory with a model of what the guest wrote to it.
 * A workload is run in it, while everything is recorded.  Then the record is
 * cut at every operation, and the states are built that the files may be in
 * if the power goes at that moment: all that was flushed (a flush of one file
 * says nothing of the other), and any part of what was not, where a write may
 * be torn between sectors.  Each state must be sound:
 *
 *   - the checker finds no error, though perhaps leaked clusters
 *   - each sector of the guest holds what was last flushed or something that
 *     was written later; likewise a raw data file, by itself
 *   - the snapshot holds what it always did
 *   - the engine opens it and reads the same
 *   - it can be written to, after which there still is no error
 */

#ifndef CRASH_H
#define CRASH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "image/image.h"
#include "image-checker.h"
#include "image-maker.h"
#include "store-memory.h"

/* n, or a quarter of it in the short form that 'make check' runs (see
 * tests/Makefile.am), but at least 1.
 */
unsigned crash_share (unsigned n);

/* --- random numbers that are the same everywhere --- */

struct rng {
  uint64_t state;
};
uint64_t rng_next (struct rng *rng);
uint64_t rng_below (struct rng *rng, uint64_t n); /* n > 0 */

/* --- workloads --- */

enum request_kind { WRITE, ZERO, TRIM, FLUSH, SETTLE, READ, REQUEST_KINDS };

struct request {
  enum request_kind kind;
  uint64_t offset, length;      /* bytes */
  unsigned flags;               /* ZERO: IMAGE_ZERO_*; SETTLE: SETTLE_* */
};

/* Nobody has done anything for a while; close the image and open it again. */
#define SETTLE_IDLE 1
#define SETTLE_REOPEN 2

#define MAX_DURING 8

/* A request.  If it is paused, that is at the nth operation of a kind that it
 * does on a file, before or after it; then another thread does what is in
 * "during".  If that has to wait for the request, it goes on.
 */
struct step {
  struct request request;
  struct {
    unsigned nth;               /* from 1; 0: not paused */
    int kind;                   /* enum memory_kind; -1: any but reads */
    int file;                   /* -1: any */
    bool after;
    bool patient;               /* "during" has no reason to wait for us */
    bool together;              /* each of "during" has a thread of its own */
  } pause;
  struct request during[MAX_DURING];
  unsigned n_during;
  bool races;                   /* some of "during" touch the same sectors, so
                                   that the order is anybody's guess */
};

struct workload {
  const char *name;
  unsigned variant;
  const struct image_spec *spec;
  struct step *step;
  size_t steps;
  size_t l2_cache;              /* bytes; 0: plenty */
  struct memory_fault fault;    /* nth 0: none */
};

/* A workload from random numbers, of at most so many steps. */
void workload_random (struct workload *workload,
                      const struct image_spec *spec, struct rng *rng,
                      size_t steps);
void workload_free (struct workload *workload);

/* --- worlds --- */

/* What happens is numbered, because not all of it shows in the log. */
struct version {
  size_t issued;                /* position in the log */
  size_t done;                  /* event; SIZE_MAX: never */
  uint8_t *bytes;               /* NULL: zeros */
};

struct history {
  struct version *version;
  size_t count, room;
  bool partial;                 /* was written to in part */
};

struct flushed {
  size_t begin;                 /* event */
  size_t end;                   /* position in the log */
};

struct bitmap_copy;

struct world {
  const struct image_spec *spec;
  struct memory_file start[MEMORY_FILES], live[MEMORY_FILES];
  uint8_t *initial;             /* the guest's disk at the start */
  struct memory_log log;
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

/* Opens files as they are now. */
struct files {
  struct memory_file *file;     /* MEMORY_FILES of them */
  struct memory_log *log;       /* or NULL */
  bool no_discard, device;
  struct write_options write;
  struct store *store;          /* of the image file, while open */
};
int files_open (struct files *files, bool writable, size_t l2_cache,
                struct image **image);

/* --- states --- */

struct crash_stats {
  uint64_t built, distinct, by_qemu;
  uint64_t faults;              /* that were met */
  uint64_t pauses;              /* likewise */
  uint64_t workloads;
  uint64_t cuts, cuts_in_full;  /* places to cut; with all subsets tried */
};

struct crash_options {
  uint64_t seed;
  uint64_t max_states;          /* of one workload; 0: no limit */
  unsigned qemu_every;          /* check every nth state with qemu-img; 0 */
  bool from_pause;              /* nothing before a request that is stopped */
};

/* Runs a workload and checks the states it may leave behind.  Returns false,
 * with a message in failure, at the first one that is not sound.
 */
bool crash_run (const struct workload *workload,
                const struct crash_options *options,
                struct crash_stats *stats, char failure[1024]);

/* Writes down which states have been tried; adds what another process wrote,
 * and returns how many of those are new.
 */
bool crash_states_write (FILE *f);
uint64_t crash_states_add (FILE *f);

/* What has to come back does so within this, however slow the machine. */
extern uint64_t crash_hang_ns;

/* Drops the messages of the engine (or shows them, if told so by the
 * environment).
 */
void crash_quiet (void);

#endif /* CRASH_H */
