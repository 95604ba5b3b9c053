/* qcow2ext: the ciphers and hashes of LUKS.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A context of the library holds the vector of the sector that is under way,
 * so each thread needs one for as long as it computes.  There are as many as
 * processors, and at least as many as nbdkit has threads for a client, made
 * together with the cipher: nothing has to be allocated, and nothing can fail,
 * in the middle of a request.
 *
 * Lock: c->lock guards the list of contexts that nobody uses.  Threads hold a
 * context only while they compute, so waiting for one is short.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/report.h"
#include "cipher.h"
#include "disk/format.h"
#include "load-gcrypt.h"

#define MIN_CONTEXTS 16
#define MAX_CONTEXTS 64

#define BLOCK 16                /* of AES */

struct context {
  struct context *next;         /* among those that nobody uses */
  gcry_cipher_hd_t data;
  gcry_cipher_hd_t iv;          /* for ESSIV, or NULL */
};

struct cipher {
  enum luks_iv iv;
  pthread_mutex_t lock;
  pthread_cond_t returned;
  struct context *unused;
  size_t count;
  struct context context[];
};

/* In locked memory, if there is some left. */
static gcry_error_t
open_handle (gcry_cipher_hd_t *handle, int algorithm, int mode,
             const uint8_t *key, size_t bytes)
{
  gcry_error_t e;

  e = libgcrypt.cipher_open (handle, algorithm, mode, GCRY_CIPHER_SECURE);
  if (e)
    e = libgcrypt.cipher_open (handle, algorithm, mode, 0);
  return e ? e : libgcrypt.cipher_setkey (*handle, key, bytes);
}

static gcry_error_t
open_context (struct context *x, const struct luks_header *h,
              const uint8_t *key)
{
  const unsigned aes_bytes = h->mode == LUKS_XTS ? h->key_bytes / 2
                                                 : h->key_bytes;
  uint8_t hash[CIPHER_MAX_HASH_BYTES];
  gcry_error_t e;

  e = open_handle (&x->data,
                   aes_bytes == 16 ? GCRY_CIPHER_AES128 : GCRY_CIPHER_AES256,
                   h->mode == LUKS_XTS ? GCRY_CIPHER_MODE_XTS
                                       : GCRY_CIPHER_MODE_CBC,
                   key, h->key_bytes);
  if (e || h->iv != LUKS_IV_ESSIV_SHA256)
    return e;
  hash_run (LUKS_SHA256, hash, key, h->key_bytes);
  e = open_handle (&x->iv, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_ECB, hash,
                   hash_bytes (LUKS_SHA256));
  explicit_bzero (hash, sizeof hash);
  return e;
}

struct cipher *
cipher_new (const struct luks_header *h, const uint8_t *key)
{
  const long processors = sysconf (_SC_NPROCESSORS_ONLN);
  const size_t n = processors < MIN_CONTEXTS ? MIN_CONTEXTS
    : processors > MAX_CONTEXTS ? MAX_CONTEXTS : processors;
  struct cipher *c = calloc (1, sizeof *c + n * sizeof c->context[0]);
  gcry_error_t e = 0;

  if (c == NULL) {
    report_error ("malloc: %m");
    return NULL;
  }
  c->iv = h->iv;
  pthread_mutex_init (&c->lock, NULL);
  pthread_cond_init (&c->returned, NULL);
  for (size_t i = 0; i < n && e == 0; i++) {
    e = open_context (&c->context[i], h, key);
    c->count = i + 1;
    c->context[i].next = c->unused;
    c->unused = &c->context[i];
  }
  if (e) {
    report_error ("libgcrypt: %s", libgcrypt.strerror (e));
    cipher_free (c);
    return NULL;
  }
  return c;
}

void
cipher_free (struct cipher *c)
{
  if (c == NULL)
    return;
  for (size_t i = 0; i < c->count; i++) { /* which wipes them */
    libgcrypt.cipher_close (c->context[i].data);
    libgcrypt.cipher_close (c->context[i].iv);
  }
  pthread_cond_destroy (&c->returned);
  pthread_mutex_destroy (&c->lock);
  free (c);
}

static struct context *
get_context (struct cipher *c)
{
  struct context *x;

  pthread_mutex_lock (&c->lock);
  while (c->unused == NULL)
    pthread_cond_wait (&c->returned, &c->lock);
  x = c->unused;
  c->unused = x->next;
  pthread_mutex_unlock (&c->lock);
  return x;
}

static void
put_context (struct cipher *c, struct context *x)
{
  pthread_mutex_lock (&c->lock);
  x->next = c->unused;
  c->unused = x;
  pthread_cond_signal (&c->returned);
  pthread_mutex_unlock (&c->lock);
}

/* The initialisation vector of a sector: its number, lowest byte first. */
static gcry_error_t
set_iv (const struct cipher *c, struct context *x, uint64_t sector)
{
  const uint64_t number = htole64 (c->iv == LUKS_IV_PLAIN ? (uint32_t) sector
                                                          : sector);
  uint8_t iv[BLOCK] = { 0 };
  gcry_error_t e = 0;

  memcpy (iv, &number, sizeof number);
  if (x->iv)
    e = libgcrypt.cipher_encrypt (x->iv, iv, sizeof iv, NULL, 0);
  return e ? e : libgcrypt.cipher_setiv (x->data, iv, sizeof iv);
}

/* encrypt or decrypt: they have the same type. */
typedef __typeof__ (gcry_cipher_encrypt) *run_fn;

static int
run (struct cipher *c, run_fn fn, uint8_t *out, const uint8_t *in,
     size_t bytes, uint64_t sector)
{
  struct context *x = get_context (c);
  gcry_error_t e = 0;

  for (size_t i = 0; i < bytes && e == 0; i += LUKS_SECTOR_SIZE) {
    e = set_iv (c, x, sector++);
    if (e == 0)
      e = fn (x->data, out + i, LUKS_SECTOR_SIZE, in + i, LUKS_SECTOR_SIZE);
  }
  put_context (c, x);
  if (e) {
    report_error ("libgcrypt: %s", libgcrypt.strerror (e));
    return -EIO;
  }
  return 0;
}

int
cipher_encrypt (struct cipher *c, void *out, const void *in, size_t bytes,
                uint64_t sector)
{
  return run (c, libgcrypt.cipher_encrypt, out, in, bytes, sector);
}

int
cipher_decrypt (struct cipher *c, void *out, const void *in, size_t bytes,
                uint64_t sector)
{
  return run (c, libgcrypt.cipher_decrypt, out, in, bytes, sector);
}

static int
hash_algorithm (enum luks_hash hash)
{
  switch (hash) {
  case LUKS_SHA1: return GCRY_MD_SHA1;
  case LUKS_SHA256: return GCRY_MD_SHA256;
  case LUKS_SHA512: break;
  }
  return GCRY_MD_SHA512;
}

size_t
hash_bytes (enum luks_hash hash)
{
  return hash == LUKS_SHA1 ? 20 : hash == LUKS_SHA256 ? 32 : 64;
}

void
hash_run (enum luks_hash hash, uint8_t *out, const void *in, size_t bytes)
{
  libgcrypt.md_hash_buffer (hash_algorithm (hash), out, in, bytes);
}

int
pbkdf2 (enum luks_hash hash, const void *passphrase, size_t length,
        const uint8_t salt[LUKS_SALT_BYTES], uint32_t iterations,
        uint8_t *out, size_t bytes)
{
  const gcry_error_t e =
    libgcrypt.kdf_derive (passphrase, length, GCRY_KDF_PBKDF2,
                          hash_algorithm (hash), salt, LUKS_SALT_BYTES,
                          iterations, bytes, out);

  if (e) {
    report_error ("libgcrypt: PBKDF2: %s", libgcrypt.strerror (e));
    return -EIO;
  }
  return 0;
}
