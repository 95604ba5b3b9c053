/* qcow2ext: what the fuzzers share.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each fuzz-NAME.c has one LLVMFuzzerTestOneInput, for libFuzzer, for AFL++
 * (whose driver calls the same) and for replay.c.  README says how to run
 * them.
 */

#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hostile-images.h"
#include "hostile.h"
#include "store-memory.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* What the seeds are made of: an input of this target from a sound image, in
 * at most room bytes.  Returns its size; 0: this image is not for it.
 */
size_t fuzz_seed (const struct hostile_base *base,
                  const struct memory_file *image, uint8_t *input,
                  size_t room);

/* Says what does not hold, and aborts. */
_Noreturn void fuzz_fail (const char *fmt, ...)
  __attribute__ ((format (printf, 1, 2)));

/* Clusters of 16 to 64 KiB have only their beginning in an input, and zeros
 * behind it: the smaller the inputs, the faster the fuzzer.
 */
#define FUZZ_PART 1024

/* Images of targets that are not about headers: a sound header of a few
 * bytes' choice, with the rest of the input behind it.
 *
 *   byte 0: log2 of the cluster size (bits 0-2, from 9 to 14), extended L2 (3),
 *           data file (4), version 2 (5), zstd (6), dirty (7)
 *   byte 1: refcount order (0-2), the number of L1 entries (3-7, from 1)
 *   the others: nothing
 *
 * The L1 table is in cluster 1, the refcount table in cluster 2.
 */
#define FUZZ_CHOICE 8
struct fuzz_layout {
  unsigned bits, order, version, l1_entries;
  bool extended, external, zstd, dirty;
  uint64_t cluster, size;
};
struct fuzz_layout fuzz_layout (const uint8_t choice[FUZZ_CHOICE]);
void fuzz_header (struct memory_file *f, const struct fuzz_layout *layout);

/* Makes the files of an input that begins with those bytes.  They are
 * overwritten when files are made the next time.
 */
struct memory_file *fuzz_layout_files (const uint8_t *data, size_t size,
                                       struct fuzz_layout *layout);

/* The choice that fits a sound image, whose clusters from 1 on, with its L1
 * table and refcount table moved to where they belong, follow.
 */
size_t fuzz_layout_seed (const struct hostile_base *base,
                         const struct memory_file *image, uint8_t *input,
                         size_t room);

/* The requests at the end of an input: 4 bytes each, then a byte that says
 * how many.  *size is what is left in front of them.
 */
#define FUZZ_REQUESTS 32
size_t fuzz_requests (const uint8_t *data, size_t *size,
                      struct hostile_request request[FUZZ_REQUESTS]);
size_t fuzz_add_requests (uint8_t *input, size_t size, size_t room);

/* Opens an image for reading, silently; NULL: it cannot be opened. */
struct image *fuzz_open (struct memory_file *file);

/* Runs a session and fails if something does not hold. */
void fuzz_run (struct hostile_run *run);

/* A whole session, on any image or made into one with a data file, or with
 * what is written compressed; and a seed for that.
 */
int fuzz_session (const uint8_t *data, size_t size, bool pair, bool compress);
size_t fuzz_session_seed (const struct memory_file *image, uint8_t *input,
                          size_t room);

#endif /* FUZZ_H */
