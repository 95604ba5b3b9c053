/* qcow2ext: decoding between pages that nobody may touch.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A program that is linked with --wrap=decoder_run decodes into and from
 * buffers that end where a page without access begins; every other time, they
 * begin where one ends.  So whoever reads or writes one byte too many faults
 * at once, with no sanitizer.
 */

#ifndef GUARD_DECODER_H
#define GUARD_DECODER_H

#include <stddef.h>

struct decoder;

/* How often something was decoded between guards. */
extern unsigned long guarded_decodes;

/* Which end is guarded: -1 in turns, 0 the beginning, 1 the end. */
extern int guard_end;

/* What the decoder is told that is not so, to see the guards at work. */
enum guard_lie {
  GUARD_NO_LIE,
  GUARD_INPUT_IS_LONGER,
  GUARD_OUTPUT_IS_LONGER,
  GUARD_OUTPUT_BEGINS_BEFORE,
};
extern enum guard_lie guard_lie;

/* What the linker makes of decoder_run. */
int __real_decoder_run (struct decoder *decoder, unsigned compression_type,
                        const void *data, size_t size, void *out,
                        size_t out_size);
int __wrap_decoder_run (struct decoder *decoder, unsigned compression_type,
                        const void *data, size_t size, void *out,
                        size_t out_size);

#endif /* GUARD_DECODER_H */
