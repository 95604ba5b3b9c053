/* qcow2ext: small arithmetic on offsets, and bitmaps of sectors.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_BITS_H
#define QCOW2_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline uint64_t
min64 (uint64_t a, uint64_t b)
{
  return a < b ? a : b;
}

static inline uint64_t
max64 (uint64_t a, uint64_t b)
{
  return a > b ? a : b;
}

/* Rounding to a multiple of "to", a power of 2.  Rounding up must not
 * overflow: v is at most INT64_MAX, as all offsets are.
 */
static inline uint64_t
round_down (uint64_t v, uint64_t to)
{
  return v & -to;
}

static inline uint64_t
round_up (uint64_t v, uint64_t to)
{
  return (v + to - 1) & -to;
}

/* How many units of 1 << bits it takes to hold v; no overflow for any v. */
static inline uint64_t
div_round_up (uint64_t v, unsigned bits)
{
  return (v >> bits) + !!(v & ((UINT64_C (1) << bits) - 1));
}

/* A set of small numbers (sectors of a table, mostly), 64 in a word. */
static inline size_t
bit_words (size_t n)
{
  return (n + 63) / 64;
}

static inline bool
test_bit (const uint64_t *bits, size_t i)
{
  return bits[i / 64] >> (i % 64) & 1;
}

static inline void
set_bit (uint64_t *bits, size_t i)
{
  bits[i / 64] |= UINT64_C (1) << (i % 64);
}

/* Finds the next run of set bits at or after *start, among n bits.  Sets
 * *start to where it begins and returns its length, or 0 if there is none.
 */
static inline size_t
next_set_run (const uint64_t *bits, size_t n, size_t *start)
{
  size_t i = *start, end;

  while (i < n && !test_bit (bits, i))
    i = bits[i / 64] == 0 ? (i / 64 + 1) * 64 : i + 1;
  for (end = i; end < n && test_bit (bits, end); end++)
    ;
  *start = i;
  return i < n ? end - i : 0;
}

#endif /* QCOW2_BITS_H */
