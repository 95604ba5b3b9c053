/* qcow2ext: the volume key of LUKS version 1.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A key slot holds the volume key, spread over 4000 stripes of which each is
 * needed, and encrypted with a key that PBKDF2 makes of the pass phrase.
 * Whether what comes out is the volume key, the header's digest tells.
 *
 * All that is on the way to the key is in memory for secrets.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/report.h"
#include "cipher.h"
#include "disk/format.h"
#include "luks-key.h"
#include "secret.h"

/* The speed is measured for at least this long, seconds. */
#define MEASURE_SECONDS 0.02

struct work {
  uint8_t key[LUKS_MAX_KEY_BYTES]; /* of a slot */
  uint8_t digest[LUKS_DIGEST_BYTES];
  uint8_t block[CIPHER_MAX_HASH_BYTES + sizeof (be32)];
  uint8_t hash[CIPHER_MAX_HASH_BYTES];
  uint8_t material[];
};

/* Blocks of the hash that PBKDF2 makes for so many bytes, one after another. */
static uint64_t
blocks (enum luks_hash hash, size_t bytes)
{
  return (bytes + hash_bytes (hash) - 1) / hash_bytes (hash);
}

/* What it takes to try all key slots, in iterations for one block. */
static uint64_t
count_iterations (const struct luks_header *h)
{
  const uint64_t key = blocks (h->hash, h->key_bytes);
  const uint64_t digest = blocks (h->hash, LUKS_DIGEST_BYTES);
  uint64_t n = 0;

  for (unsigned i = 0; i < LUKS_SLOTS; i++)
    if (h->slot[i].active)
      n += key * h->slot[i].iterations + digest * h->digest_iterations;
  return n;
}

static double
thread_seconds (void)
{
  struct timespec t;

  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Iterations a second, for one block. */
static double
measure_speed (enum luks_hash hash)
{
  static const uint8_t salt[LUKS_SALT_BYTES];
  uint8_t out[LUKS_DIGEST_BYTES];
  double start, seconds = 0;
  uint32_t n = 1000;

  while (seconds < MEASURE_SECONDS && n < UINT32_MAX / 2) {
    n *= 2;
    start = thread_seconds ();
    if (pbkdf2 (hash, "speed", 5, salt, n, out, sizeof out) < 0)
      break;
    seconds = thread_seconds () - start;
  }
  return seconds > 0 ? n / seconds : 1;
}

static int
check_time (const char *name, const struct luks_header *h)
{
  const uint64_t n = count_iterations (h);
  const double seconds = n / measure_speed (h->hash);

  report_debug ("%s: LUKS: %" PRIu64 " iterations, at most %.1f seconds", name,
                n, seconds);
  if (seconds <= LUKS_MAX_SECONDS)
    return 0;
  report_error ("%s: to try the pass phrase would take about %.0f seconds (%"
                PRIu64 " iterations of PBKDF2, all key slots together), and "
                "more than %d are not accepted", name, seconds, n,
                LUKS_MAX_SECONDS);
  return -E2BIG;
}

/* Diffuses a stripe: each block of it becomes its hash. */
static void
diffuse (const struct luks_header *h, struct work *w, uint8_t *stripe)
{
  const size_t size = hash_bytes (h->hash);

  for (size_t i = 0; i * size < h->key_bytes; i++) {
    const size_t left = h->key_bytes - i * size;
    const size_t n = left < size ? left : size;
    const be32 number = be32_make (i);

    memcpy (w->block, &number, sizeof number);
    memcpy (w->block + sizeof number, stripe + i * size, n);
    hash_run (h->hash, w->hash, w->block, sizeof number + n);
    memcpy (stripe + i * size, w->hash, n);
  }
}

/* Merges the stripes of decrypted key material. */
static void
merge (const struct luks_header *h, struct work *w, uint8_t *key)
{
  memset (key, 0, h->key_bytes);
  for (unsigned i = 0; i < LUKS_STRIPES; i++) {
    for (unsigned j = 0; j < h->key_bytes; j++)
      key[j] ^= w->material[i * h->key_bytes + j];
    if (i < LUKS_STRIPES - 1)
      diffuse (h, w, key);
  }
}

static int
decrypt_material (const struct luks_header *h, struct work *w)
{
  struct cipher *c = cipher_new (h, w->key);
  int r;

  if (c == NULL)
    return -EIO;
  r = cipher_decrypt (c, w->material, w->material, luks_material_bytes (h), 0);
  cipher_free (c);
  return r;
}

/* Returns 1 if the slot has given the key, 0 if not. */
static int
try_slot (struct store *store, uint64_t offset, const struct luks_header *h,
          const struct luks_slot *slot, const char *passphrase,
          struct work *w, uint8_t *key)
{
  int r;

  r = store_pread (store, w->material, luks_material_bytes (h),
                   offset + slot->material);
  if (r < 0) {
    report_error ("%s: a key slot cannot be read: %s", store->name,
                  strerror (-r));
    return r;
  }
  r = pbkdf2 (h->hash, passphrase, strlen (passphrase), slot->salt,
              slot->iterations, w->key, h->key_bytes);
  if (r < 0 || (r = decrypt_material (h, w)) < 0)
    return r;
  merge (h, w, key);
  r = pbkdf2 (h->hash, key, h->key_bytes, h->digest_salt,
              h->digest_iterations, w->digest, sizeof w->digest);
  if (r < 0)
    return r;
  return memcmp (w->digest, h->digest, sizeof w->digest) == 0;
}

int
luks_find_key (struct store *store, uint64_t offset,
               const struct luks_header *h, const char *passphrase,
               uint8_t *key)
{
  struct work *w;
  int r = check_time (store->name, h);

  if (r < 0)
    return r;
  w = secret_alloc (sizeof *w + luks_material_bytes (h));
  if (w == NULL)
    return -ENOMEM;
  for (unsigned i = 0; r == 0 && i < LUKS_SLOTS; i++)
    if (h->slot[i].active)
      r = try_slot (store, offset, h, &h->slot[i], passphrase, w, key);
  secret_free (w);
  if (r > 0)
    return 0;
  explicit_bzero (key, h->key_bytes);
  if (r < 0)
    return r;
  report_error ("%s: the pass phrase of qcow2ext-passphrase= opens none of "
                "the image's key slots", store->name);
  return -EACCES;
}
