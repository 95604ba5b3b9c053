/* qcow2ext: decoding between pages that nobody may touch.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guard-decoder.h"

/* A cluster, and the most that a descriptor of compressed data says. */
#define ROOM ((size_t) 4 << 20)

unsigned long guarded_decodes;
int guard_end = -1;
enum guard_lie guard_lie;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *input, *output;

static uint8_t *
make_area (void)
{
  const size_t page = sysconf (_SC_PAGESIZE);
  uint8_t *p = mmap (NULL, ROOM + 2 * page, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  if (p == MAP_FAILED || mprotect (p + page, ROOM, PROT_READ | PROT_WRITE)) {
    perror ("guard pages");
    abort ();
  }
  return p + page;
}

int
__wrap_decoder_run (struct decoder *decoder, unsigned compression_type,
                    const void *data, size_t size, void *out, size_t out_size)
{
  uint8_t *in, *to;
  int r;

  if (size > ROOM || out_size > ROOM) {
    fprintf (stderr, "decoding %zu bytes into %zu\n", size, out_size);
    abort ();
  }
  pthread_mutex_lock (&lock);
  if (input == NULL) {
    input = make_area ();
    output = make_area ();
  }
  in = input;
  to = output;
  if (guard_end < 0 ? guarded_decodes++ % 2 == 0 : guard_end) {
    in += ROOM - size;
    to += ROOM - out_size;
  }
  memcpy (in, data, size);
  r = __real_decoder_run (decoder, compression_type, in,
                          size + (guard_lie == GUARD_INPUT_IS_LONGER),
                          to - (guard_lie == GUARD_OUTPUT_BEGINS_BEFORE),
                          out_size + (guard_lie == GUARD_OUTPUT_IS_LONGER));
  if (r == 0)
    memcpy (out, to, out_size);
  pthread_mutex_unlock (&lock);
  return r;
}
