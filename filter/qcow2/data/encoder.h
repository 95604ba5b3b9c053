/* qcow2ext: compression of one cluster.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_ENCODER_H
#define QCOW2_ENCODER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Compresses the clusters of one image.  Any number of threads may use it at
 * once.
 */
struct encoder;

/* compression_type is the header's, cluster_size in bytes.  Returns NULL if
 * there is no memory.
 */
struct encoder *encoder_new (unsigned compression_type, size_t cluster_size);
void encoder_free (struct encoder *encoder);

/* The most bytes that encoder_run writes: with more, a cluster is not worth
 * being compressed.
 */
size_t encoder_room (const struct encoder *encoder);

/* Compresses one cluster into out, which has encoder_room bytes.  Returns the
 * size of the result, 0 if it is not worth it, or -ENOMEM.
 */
ssize_t encoder_run (struct encoder *encoder, const void *cluster, void *out);

#endif /* QCOW2_ENCODER_H */
