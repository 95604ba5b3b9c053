/* qcow2ext: uses an image that nobody vouches for, and watches.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Requests are made to the engine over files in memory.  Whatever the image
 * says, these must hold, besides what the sanitizers say:
 *
 *   - opening and reading change nothing; nothing is ever written to the
 *     backing file, nor to the data file behind the disk's end
 *   - what is metadata, as image-walker.c knows it, changes only in ways
 *     that make sense for what it is, and never holds guest data
 *   - no request takes more than a bounded number of operations
 *   - few lines are logged
 *   - what is said to be a hole reads as zeros
 *
 * Where the image was sound when it was opened (the engine's check and
 * image-checker.c agree), also:
 *
 *   - it still is at the end
 *   - the guest and the snapshot read what they should, also after a reopen
 */

#ifndef HOSTILE_H
#define HOSTILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/write-options.h"
#include "store-memory.h"

/* What is written: stamps, which compress well; with these flags, zeros, or
 * what does not compress.
 */
#define HOSTILE_ZEROS 1
#define HOSTILE_NOISE 2

enum hostile_kind {
  HOSTILE_WRITE, HOSTILE_ZERO, HOSTILE_TRIM, HOSTILE_FLUSH, HOSTILE_SETTLE,
  HOSTILE_READ, HOSTILE_EXTENTS, HOSTILE_CACHE, HOSTILE_REOPEN,
  HOSTILE_KINDS,
};

struct hostile_request {
  enum hostile_kind kind;
  uint64_t offset, length;      /* bytes; cut to the size of the disk */
  unsigned flags;               /* ZERO: IMAGE_ZERO_*; WRITE: see above */
};

struct hostile_run {
  /* Set by the caller.  The files, MEMORY_FILES of them, are changed. */
  struct memory_file *file;
  bool writable;
  bool check;                   /* as the user's option */
  const char *snapshot, *bitmap; /* to be shown, or NULL */
  struct write_options write;
  const struct hostile_request *request;
  size_t requests;

  /* What came of it. */
  bool opened, could_write, sound;
  unsigned done;                /* requests that succeeded */
  uint64_t operations;          /* on the files */
  unsigned messages;
  char failure[512];            /* empty: all is well */
};

/* Returns false, with a message in failure, if something does not hold. */
bool hostile_run (struct hostile_run *run);

/* The sector at a place in a request that is the size of a disk: for requests
 * made of bytes.  Each request is made of 4 bytes; returns how many fit into
 * the bytes, at most max.
 */
size_t hostile_decode (const uint8_t *bytes, size_t size, uint64_t disk_size,
                       struct hostile_request *request, size_t max);

/* How large an image or a data file may become. */
#define HOSTILE_FILE_LIMIT (UINT64_C (8) << 20)

#endif /* HOSTILE_H */
