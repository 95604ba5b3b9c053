/* qcow2ext: how a refcount lies in a refcount block.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A block holds counts of 1 << order bits each; those of less than a byte begin
 * at the low bits of it.
 *
 * Spec: "Host cluster management".
 */

#ifndef QCOW2_REFCOUNT_H
#define QCOW2_REFCOUNT_H

#include <stdint.h>

uint64_t refcount_decode (const void *block, unsigned order, uint64_t index);

/* The count must fit. */
void refcount_encode (void *block, unsigned order, uint64_t index,
                      uint64_t count);

#endif /* QCOW2_REFCOUNT_H */
