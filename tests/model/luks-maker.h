/* qcow2ext: makes LUKS headers in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Written from the specification; only ciphers and hashes are the filter's.
 */

#ifndef LUKS_MAKER_H
#define LUKS_MAKER_H

#include <stdint.h>

#include "disk/luks-header.h"

struct luks_spec {
  const char *mode, *hash;      /* as they stand in the header */
  unsigned key_bytes;
  unsigned slots;               /* a bit for each that is in use */
  uint32_t iterations;          /* of slots and digest */
  uint64_t seed;                /* of key and salts */
};

/* Where things are, bytes. */
#define LUKS_AT_VERSION 6
#define LUKS_AT_CIPHER 8
#define LUKS_AT_MODE 40
#define LUKS_AT_HASH 72
#define LUKS_AT_KEY_BYTES 108
#define LUKS_AT_DIGEST 112
#define LUKS_AT_DIGEST_ITERATIONS 164
#define LUKS_AT_SLOT(n) (208 + 48 * (n))
#define LUKS_SLOT_ITERATIONS 4
#define LUKS_SLOT_MATERIAL 40
#define LUKS_SLOT_STRIPES 44

/* How many bytes the header and eight slots take. */
uint64_t luks_length (const struct luks_spec *spec);

/* Makes the header, with the material of the slots that are in use; slot n
 * is opened by "phrase n".  Copies the volume key to key.
 */
void make_luks (const struct luks_spec *spec, uint8_t *bytes,
                uint8_t key[LUKS_MAX_KEY_BYTES]);

void put_be32 (uint8_t *where, uint32_t value);

#endif /* LUKS_MAKER_H */
