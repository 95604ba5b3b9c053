/* qcow2ext: a cipher for the tests of the engine.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <string.h>

#include "cipher.h"
#include "store-crypt.h"
#include "toy-cipher.h"

#define SECTOR 512
#define WORDS (SECTOR / 8)

static uint64_t
key_of (uint64_t sector)
{
  const uint64_t k = (sector + 1) * UINT64_C (0x9e3779b97f4a7c15);

  return k ^ k >> 31;
}

static void
encrypt_sector (uint8_t *p, uint64_t sector)
{
  const uint64_t k = key_of (sector);
  uint64_t before = k, x;

  for (unsigned i = 0; i < WORDS; i++) {
    memcpy (&x, p + 8 * i, 8);
    x ^= before;
    before = (x << 23 | x >> 41) + k;
    memcpy (p + 8 * i, &before, 8);
  }
}

static void
decrypt_sector (uint8_t *p, uint64_t sector)
{
  const uint64_t k = key_of (sector);
  uint64_t before = k, c, x;

  for (unsigned i = 0; i < WORDS; i++) {
    memcpy (&c, p + 8 * i, 8);
    x = c - k;
    x = (x >> 23 | x << 41) ^ before;
    before = c;
    memcpy (p + 8 * i, &x, 8);
  }
}

void
toy_encrypt (uint8_t *sectors, size_t bytes, uint64_t offset)
{
  for (size_t i = 0; i < bytes; i += SECTOR)
    encrypt_sector (sectors + i, (offset + i) / SECTOR);
}

void
toy_decrypt (uint8_t *sectors, size_t bytes, uint64_t offset)
{
  for (size_t i = 0; i < bytes; i += SECTOR)
    decrypt_sector (sectors + i, (offset + i) / SECTOR);
}

/* --- as the filter's --- */

struct cipher {
  char nothing;
};
static struct cipher toy;

int
cipher_encrypt (struct cipher *c, void *out, const void *in, size_t bytes,
                uint64_t sector)
{
  (void) c;
  memmove (out, in, bytes);
  toy_encrypt (out, bytes, sector * SECTOR);
  return 0;
}

int
cipher_decrypt (struct cipher *c, void *out, const void *in, size_t bytes,
                uint64_t sector)
{
  (void) c;
  memmove (out, in, bytes);
  toy_decrypt (out, bytes, sector * SECTOR);
  return 0;
}

void
cipher_free (struct cipher *c)
{
  (void) c;
}

int
toy_open_encrypted (void *opaque, struct store *of, uint64_t offset,
                    uint64_t length, struct store *clusters,
                    struct store **store)
{
  struct store *s = store_crypt_new (clusters, &toy);

  (void) opaque, (void) of, (void) offset, (void) length;
  if (s == NULL)
    return -ENOMEM;
  *store = s;
  return 0;
}
