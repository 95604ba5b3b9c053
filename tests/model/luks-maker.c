/* qcow2ext: makes LUKS headers in memory.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cipher.h"
#include "luks-maker.h"

static uint64_t random_state;

static void
fill (uint8_t *bytes, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    random_state = random_state * UINT64_C (6364136223846793005) + 1;
    bytes[i] = random_state >> 56;
  }
}

void
put_be32 (uint8_t *where, uint32_t value)
{
  for (int i = 0; i < 4; i++)
    where[i] = value >> (24 - 8 * i);
}

/* Sectors of one slot: begun on 4 KiB. */
static uint64_t
slot_sectors (const struct luks_spec *spec)
{
  const uint64_t n = (spec->key_bytes * 4000 + 511) / 512;

  return (n + 7) / 8 * 8;
}

uint64_t
luks_length (const struct luks_spec *spec)
{
  return 512 * (8 + 8 * slot_sectors (spec));
}

static struct luks_header
parameters (const struct luks_spec *spec)
{
  struct luks_header h = { .key_bytes = spec->key_bytes };

  h.mode = strncmp (spec->mode, "xts", 3) == 0 ? LUKS_XTS : LUKS_CBC;
  h.iv = strstr (spec->mode, "essiv") ? LUKS_IV_ESSIV_SHA256
    : strstr (spec->mode, "plain64") ? LUKS_IV_PLAIN64 : LUKS_IV_PLAIN;
  h.hash = strcmp (spec->hash, "sha1") == 0 ? LUKS_SHA1
    : strcmp (spec->hash, "sha256") == 0 ? LUKS_SHA256 : LUKS_SHA512;
  return h;
}

/* Spreads a key over stripes: all but the last are random. */
static void
split (const struct luks_header *h, const uint8_t *key, uint8_t *out)
{
  const size_t n = h->key_bytes, size = hash_bytes (h->hash);
  uint8_t state[LUKS_MAX_KEY_BYTES] = { 0 };

  fill (out, n * 3999);
  for (size_t stripe = 0; stripe < 3999; stripe++) {
    for (size_t i = 0; i < n; i++)
      state[i] ^= out[stripe * n + i];
    for (size_t i = 0; i < n; i += size) {
      const size_t part = n - i < size ? n - i : size;
      uint8_t in[4 + CIPHER_MAX_HASH_BYTES], hash[CIPHER_MAX_HASH_BYTES];

      put_be32 (in, i / size);
      memcpy (in + 4, state + i, part);
      hash_run (h->hash, hash, in, 4 + part);
      memcpy (state + i, hash, part);
    }
  }
  for (size_t i = 0; i < n; i++)
    out[3999 * n + i] = state[i] ^ key[i];
}

static void
make_slot (const struct luks_spec *spec, const struct luks_header *h,
           const uint8_t *key, unsigned number, uint8_t *bytes)
{
  const uint64_t sector = 8 + number * slot_sectors (spec);
  uint8_t *slot = bytes + LUKS_AT_SLOT (number);
  uint8_t *material = bytes + 512 * sector;
  uint8_t slot_key[LUKS_MAX_KEY_BYTES];
  struct cipher *c;
  char phrase[16];

  put_be32 (slot, 0x0000dead);
  put_be32 (slot + LUKS_SLOT_MATERIAL, sector);
  put_be32 (slot + LUKS_SLOT_STRIPES, 4000);
  if (!(spec->slots & 1u << number))
    return;
  put_be32 (slot, 0x00ac71f3);
  put_be32 (slot + LUKS_SLOT_ITERATIONS, spec->iterations);
  fill (slot + 8, 32);
  snprintf (phrase, sizeof phrase, "phrase %u", number);
  if (pbkdf2 (h->hash, phrase, strlen (phrase), slot + 8, spec->iterations,
              slot_key, h->key_bytes) < 0
      || (c = cipher_new (h, slot_key)) == NULL)
    abort ();
  split (h, key, material);
  if (cipher_encrypt (c, material, material, h->key_bytes * 4000, 0) < 0)
    abort ();
  cipher_free (c);
}

void
make_luks (const struct luks_spec *spec, uint8_t *bytes,
           uint8_t key[LUKS_MAX_KEY_BYTES])
{
  const struct luks_header h = parameters (spec);

  random_state = spec->seed;
  memset (bytes, 0, luks_length (spec));
  memcpy (bytes, "LUKS\xba\xbe\0\1aes", 11);
  strcpy ((char *) bytes + LUKS_AT_MODE, spec->mode);
  strcpy ((char *) bytes + LUKS_AT_HASH, spec->hash);
  put_be32 (bytes + 104, 8 + 8 * slot_sectors (spec));
  put_be32 (bytes + LUKS_AT_KEY_BYTES, spec->key_bytes);
  fill (key, spec->key_bytes);
  fill (bytes + LUKS_AT_DIGEST + 20, 32);
  if (pbkdf2 (h.hash, key, h.key_bytes, bytes + LUKS_AT_DIGEST + 20,
              spec->iterations, bytes + LUKS_AT_DIGEST, 20) < 0)
    abort ();
  put_be32 (bytes + LUKS_AT_DIGEST_ITERATIONS, spec->iterations);
  for (unsigned i = 0; i < 8; i++)
    make_slot (spec, &h, key, i, bytes);
}
