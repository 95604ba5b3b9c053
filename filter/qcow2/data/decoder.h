/* qcow2ext: decompression of one cluster.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_DECODER_H
#define QCOW2_DECODER_H

#include <stddef.h>

/* The contexts of the libraries, for one thread at a time. */
struct decoder;
struct decoder *decoder_new (void);
void decoder_free (struct decoder *decoder);

/* Decodes size bytes of compressed data of the given type into exactly
 * out_size bytes.  Returns 0, or -EIO where the data is not sound.
 */
int decoder_run (struct decoder *decoder, unsigned compression_type,
                 const void *data, size_t size, void *out, size_t out_size);

#endif /* QCOW2_DECODER_H */
