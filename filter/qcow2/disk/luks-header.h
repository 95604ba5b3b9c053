/* qcow2ext: the header of LUKS version 1, validated.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An image whose crypt method is 2 has such a header, with its key slots, in
 * the range that the header extension 0x0537be77 names.  Here it is only read:
 * nothing needs a library for ciphers, a key or a pass phrase.
 *
 * Sources: "LUKS On-Disk Format Specification", version 1.2.3; qcow2 spec,
 * "Full disk encryption header pointer" and "Data encryption".
 */

#ifndef QCOW2_LUKS_HEADER_H
#define QCOW2_LUKS_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What lies on disk, without the key slots' material. */
#define LUKS_HEADER_BYTES 592

#define LUKS_SLOTS 8
#define LUKS_STRIPES 4000
#define LUKS_SALT_BYTES 32
#define LUKS_DIGEST_BYTES 20
#define LUKS_MAX_KEY_BYTES 64
#define LUKS_SECTOR_SIZE 512

/* The cipher is AES, with a key of 128 or 256 bits (twice as long for XTS). */
enum luks_mode { LUKS_XTS, LUKS_CBC };

/* How the number of a sector becomes its initialisation vector. */
enum luks_iv {
  LUKS_IV_PLAIN,                /* its lower 32 bits */
  LUKS_IV_PLAIN64,              /* 64 bits */
  LUKS_IV_ESSIV_SHA256,         /* 64 bits, encrypted with the key's hash */
};

enum luks_hash { LUKS_SHA1, LUKS_SHA256, LUKS_SHA512 };

struct luks_slot {
  bool active;                  /* the rest means nothing if not */
  uint32_t iterations;          /* >= 1 */
  uint8_t salt[LUKS_SALT_BYTES];
  uint64_t material;            /* where its key material lies: bytes from
                                   the beginning of the header */
};

struct luks_header {
  enum luks_mode mode;
  enum luks_iv iv;
  enum luks_hash hash;
  unsigned key_bytes;           /* 16, 32 or 64 */
  uint8_t digest[LUKS_DIGEST_BYTES];
  uint8_t digest_salt[LUKS_SALT_BYTES];
  uint32_t digest_iterations;   /* >= 1 */
  struct luks_slot slot[LUKS_SLOTS]; /* at least one is active */
};

/* The key material of one slot, in bytes. */
static inline size_t
luks_material_bytes (const struct luks_header *h)
{
  return (size_t) h->key_bytes * LUKS_STRIPES;
}

/* Reads a header of LUKS_HEADER_BYTES.  length is how many bytes the header
 * and the key slots may take together: the material of each active slot lies
 * within.  name is that of the image, for messages.
 *
 * Stores nothing in *h unless all of it is valid.  Returns 0, -EINVAL (not a
 * valid header) or -ENOTSUP (a cipher, mode or hash that we do not have),
 * having reported what is wrong.
 */
int luks_header_parse (const char *name, const void *bytes, uint64_t length,
                       struct luks_header *h);

#endif /* QCOW2_LUKS_HEADER_H */
