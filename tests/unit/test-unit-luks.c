/* qcow2ext: LUKS headers, keys, ciphers, and the store in front of ciphertext.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * What ciphers and PBKDF2 have to give was computed with Python's
 * "cryptography" and "hashlib".  That whole images are as QEMU makes them,
 * the scripts test.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/report.h"

#ifndef HAVE_LIBGCRYPT

int
main (void)
{
  puts ("SKIP: built without libgcrypt");
  return 77;
}

#else

#include "cipher.h"
#include "encryption.h"
#include "load-gcrypt.h"
#include "luks-key.h"
#include "luks-maker.h"
#include "need.h"
#include "store-crypt.h"
#include "store-memory.h"
#include "wrap-clock.h"

static unsigned failures;
static char last_message[4096]; /* of the engine */

#define check(condition, fmt, ...)                                      \
  do {                                                                  \
    if (!(condition)) {                                                 \
      failures++;                                                       \
      printf ("FAIL: line %d: " fmt "\n", __LINE__, ##__VA_ARGS__);     \
    }                                                                   \
  } while (0)

static void
sink (enum report_level level, const char *message)
{
  if (level != REPORT_DEBUG)
    snprintf (last_message, sizeof last_message, "%s", message);
}

/* --- ciphers and hashes --- */

#define VECTOR_SECTOR UINT64_C (0x500000001)

/* The last 16 bytes of a sector. */
static const struct vector {
  enum luks_mode mode;
  enum luks_iv iv;
  unsigned key_bytes;
  uint8_t tail[16];
} vectors[] = {
  { LUKS_XTS, LUKS_IV_PLAIN, 32,
    { 0x1c, 0x2e, 0x3a, 0x04, 0x46, 0x0b, 0xf9, 0x2f,
      0x1c, 0x86, 0x3a, 0x16, 0x0b, 0xcc, 0xbc, 0xc7 } },
  { LUKS_XTS, LUKS_IV_PLAIN64, 32,
    { 0xff, 0x97, 0xed, 0x31, 0xf5, 0x9c, 0x96, 0x39,
      0x69, 0x6b, 0xb5, 0x71, 0xae, 0x6c, 0x2e, 0xde } },
  { LUKS_XTS, LUKS_IV_ESSIV_SHA256, 32,
    { 0x6c, 0xa7, 0x29, 0x05, 0xbc, 0x4a, 0x25, 0xb7,
      0xb6, 0xa1, 0x55, 0x2b, 0x68, 0x9c, 0x02, 0x21 } },
  { LUKS_XTS, LUKS_IV_PLAIN, 64,
    { 0xf1, 0x2c, 0x80, 0x11, 0xdf, 0xc4, 0x6f, 0xf2,
      0xf5, 0x8a, 0x21, 0x8b, 0x7f, 0x4f, 0xaa, 0xb6 } },
  { LUKS_XTS, LUKS_IV_PLAIN64, 64,
    { 0xa7, 0x2e, 0x9d, 0x88, 0xaf, 0x61, 0x91, 0x6c,
      0x4f, 0xe9, 0x5d, 0x51, 0x90, 0x19, 0xa2, 0xbb } },
  { LUKS_XTS, LUKS_IV_ESSIV_SHA256, 64,
    { 0xe2, 0xfe, 0x08, 0x31, 0x9a, 0xf8, 0x03, 0x39,
      0x6e, 0x97, 0x73, 0xd6, 0x07, 0x81, 0x7b, 0x8d } },
  { LUKS_CBC, LUKS_IV_PLAIN, 16,
    { 0x35, 0x7c, 0x9d, 0x1b, 0x69, 0x79, 0xec, 0x03,
      0xb8, 0x67, 0xcb, 0x25, 0xf8, 0x5b, 0x63, 0xa1 } },
  { LUKS_CBC, LUKS_IV_PLAIN64, 16,
    { 0x01, 0x3d, 0xe0, 0x9f, 0x62, 0x3a, 0x03, 0x2e,
      0x68, 0x06, 0x67, 0x87, 0x72, 0x4d, 0x47, 0x5b } },
  { LUKS_CBC, LUKS_IV_ESSIV_SHA256, 16,
    { 0x5e, 0xb3, 0x47, 0xfb, 0xf2, 0xae, 0x0d, 0xdd,
      0x77, 0x18, 0x56, 0xe0, 0x10, 0x68, 0xb3, 0xde } },
  { LUKS_CBC, LUKS_IV_PLAIN, 32,
    { 0x9f, 0x2c, 0xac, 0x35, 0xb1, 0xef, 0xd4, 0xe9,
      0x43, 0x2f, 0x19, 0x19, 0x51, 0xdd, 0x09, 0xa6 } },
  { LUKS_CBC, LUKS_IV_PLAIN64, 32,
    { 0x5c, 0x45, 0xfc, 0x7c, 0x7e, 0xe3, 0x9b, 0x21,
      0xea, 0x3f, 0xdd, 0x36, 0x7b, 0x41, 0xcc, 0xac } },
  { LUKS_CBC, LUKS_IV_ESSIV_SHA256, 32,
    { 0xb3, 0x31, 0xcd, 0x28, 0x77, 0x11, 0xf0, 0xcf,
      0xd6, 0x1e, 0xa7, 0x8e, 0x84, 0xac, 0x5e, 0x7c } },
};

static struct cipher *
vector_cipher (const struct vector *v)
{
  const struct luks_header h = {
    .mode = v->mode, .iv = v->iv, .key_bytes = v->key_bytes
  };
  uint8_t key[LUKS_MAX_KEY_BYTES];

  for (unsigned i = 0; i < sizeof key; i++)
    key[i] = i * 13 + 1;
  return need (cipher_new (&h, key));
}

static void
test_ciphers (void)
{
  uint8_t plain[1024], out[1024];

  for (unsigned i = 0; i < sizeof plain; i++)
    plain[i] = i % 512 * 7 + 3;
  for (unsigned i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
    struct cipher *c = vector_cipher (&vectors[i]);

    cipher_encrypt (c, out, plain, sizeof out, VECTOR_SECTOR - 1);
    check (memcmp (out + 1008, vectors[i].tail, 16) == 0,
           "vector %u is wrong", i);
    cipher_decrypt (c, out, out, sizeof out, VECTOR_SECTOR - 1);
    check (memcmp (out, plain, sizeof out) == 0,
           "vector %u does not decrypt", i);
    cipher_free (c);
  }
}

static void
test_pbkdf2 (void)
{
  static const struct {
    enum luks_hash hash;
    uint8_t tail[8];
  } expected[] = {
    { LUKS_SHA1, { 0x27, 0x37, 0x99, 0x49, 0x9c, 0x44, 0x15, 0xce } },
    { LUKS_SHA256, { 0x95, 0xbc, 0x2c, 0x40, 0x7c, 0x81, 0x22, 0x11 } },
    { LUKS_SHA512, { 0xa7, 0xc1, 0xb6, 0xe0, 0xc9, 0xa4, 0x48, 0xa5 } },
  };
  uint8_t salt[LUKS_SALT_BYTES], out[40];

  for (unsigned i = 0; i < sizeof salt; i++)
    salt[i] = i * 13 + 1;
  for (unsigned i = 0; i < 3; i++) {
    check (pbkdf2 (expected[i].hash, "pass phrase", 11, salt, 77, out,
                   sizeof out) == 0, "PBKDF2 with hash %u fails", i);
    check (memcmp (out + 32, expected[i].tail, 8) == 0,
           "PBKDF2 with hash %u is wrong", i);
  }
}

/* --- contexts of the library --- */

/* The linker sends calls of sysconf here. */
static long processors;         /* 0: those that there are */
long __real_sysconf (int name);
long __wrap_sysconf (int name);

long
__wrap_sysconf (int name)
{
  return processors && name == _SC_NPROCESSORS_ONLN ? processors
                                                    : __real_sysconf (name);
}

static struct libgcrypt real;
static int last_algorithm, last_mode;
static unsigned keys_set;

static gcry_error_t
watch_open (gcry_cipher_hd_t *handle, int algorithm, int mode, unsigned flags)
{
  last_algorithm = algorithm;
  last_mode = mode;
  return real.cipher_open (handle, algorithm, mode, flags);
}

/* The library goes by the length of the key, whatever AES it was asked for, but
 * its manual does not say so.
 */
static gcry_error_t
watch_key (gcry_cipher_hd_t handle, const void *key, size_t bytes)
{
  const size_t one = last_algorithm == GCRY_CIPHER_AES128 ? 16 : 32;

  keys_set++;
  check (bytes == (last_mode == GCRY_CIPHER_MODE_XTS ? 2 * one : one),
         "algorithm %d has a key of %zu bytes", last_algorithm, bytes);
  return real.cipher_setkey (handle, key, bytes);
}

/* There is a context for each processor, within limits. */
static void
test_contexts (void)
{
  static const struct { long processors; unsigned contexts; } cases[] = {
    { -1, 16 }, { 1, 16 }, { 16, 16 }, { 17, 17 }, { 63, 63 }, { 64, 64 },
    { 65, 64 }, { 1000, 64 },
  };

  real = libgcrypt;
  libgcrypt.cipher_open = watch_open;
  libgcrypt.cipher_setkey = watch_key;
  for (unsigned i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
    cipher_free (vector_cipher (&vectors[i]));
  for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    processors = cases[i].processors;
    keys_set = 0;
    cipher_free (vector_cipher (&vectors[0]));
    check (keys_set == cases[i].contexts,
           "%u contexts for %ld processors", keys_set, processors);
  }
  processors = 0;
  libgcrypt = real;
}

/* --- headers --- */

static const struct luks_spec plain_spec = {
  .mode = "xts-plain64", .hash = "sha256", .key_bytes = 64,
  .slots = 1 | 1 << 7, .iterations = 3, .seed = 1,
};

/* A header that is changed in one place, and what becomes of it. */
static const struct header_case {
  const char *what;
  unsigned at;
  const char *text;             /* written with its NUL; or NULL: number */
  uint32_t number;              /* be32 */
  int result;
  const char *message;          /* part of it */
} header_cases[] = {
  { "nothing", 100, "", 0, 0, NULL },
  { "magic", 0, "luks", 0, -EINVAL, "no magic number" },
  { "magic's end", 5, "\x01", 0, -EINVAL, "no magic number" },
  { "cipher", LUKS_AT_CIPHER, "serpent", 0, -ENOTSUP, "serpent-xts-plain64" },
  { "no cipher", LUKS_AT_CIPHER, "", 0, -ENOTSUP, "convert" },
  { "mode", LUKS_AT_MODE, "ctr-plain64", 0, -ENOTSUP, "aes-ctr-plain64" },
  { "xts-plain", LUKS_AT_MODE, "xts-plain", 0, 0, NULL },
  { "xts-essiv", LUKS_AT_MODE, "xts-essiv:sha256", 0, 0, NULL },
  { "cbc-benbi", LUKS_AT_MODE, "cbc-benbi", 0, -ENOTSUP, "aes-cbc-benbi" },
  { "essiv:sha1", LUKS_AT_MODE, "cbc-essiv:sha1", 0, -ENOTSUP,
    "aes-cbc-essiv:sha1" },
  { "essiv", LUKS_AT_MODE, "cbc-essiv", 0, -ENOTSUP, "aes-cbc-essiv" },
  { "xts", LUKS_AT_MODE, "xts", 0, -ENOTSUP, "aes-xts" },
  { "cbc with 64 bytes", LUKS_AT_MODE, "cbc-plain64", 0, -ENOTSUP,
    "64 bytes" },
  { "hash", LUKS_AT_HASH, "ripemd160", 0, -ENOTSUP, "the hash ripemd160" },
  { "sha1", LUKS_AT_HASH, "sha1", 0, 0, NULL },
  { "sha512", LUKS_AT_HASH, "sha512", 0, 0, NULL },
  { "no key", LUKS_AT_KEY_BYTES, NULL, 0, -ENOTSUP, "0 bytes" },
  { "xts, 16 bytes", LUKS_AT_KEY_BYTES, NULL, 16, -ENOTSUP, "16 bytes" },
  { "xts, 32 bytes", LUKS_AT_KEY_BYTES, NULL, 32, 0, NULL },
  { "aes-192", LUKS_AT_KEY_BYTES, NULL, 48, -ENOTSUP, "48 bytes" },
  { "long key", LUKS_AT_KEY_BYTES, NULL, 65, -EINVAL, "65 bytes" },
  { "very long key", LUKS_AT_KEY_BYTES, NULL, 0x20000020, -EINVAL,
    "536870944 bytes" },
  { "no digest", LUKS_AT_DIGEST_ITERATIONS, NULL, 0, -EINVAL,
    "digest has no iterations" },
  { "slot's state", LUKS_AT_SLOT (7), NULL, 0xac71f4, -EINVAL,
    "key slot 7 is neither in use nor free" },
  { "stripes", LUKS_AT_SLOT (7) + LUKS_SLOT_STRIPES, NULL, 4001, -EINVAL,
    "key slot 7 has 4001 stripes" },
  { "fewer stripes", LUKS_AT_SLOT (0) + LUKS_SLOT_STRIPES, NULL, 3999,
    -EINVAL, "key slot 0 has 3999 stripes" },
  { "unused stripes", LUKS_AT_SLOT (2) + LUKS_SLOT_STRIPES, NULL, 1, 0, NULL },
  { "no iterations", LUKS_AT_SLOT (0) + LUKS_SLOT_ITERATIONS, NULL, 0,
    -EINVAL, "key slot 0 has no iterations" },
  { "early slot", LUKS_AT_SLOT (0) + LUKS_SLOT_MATERIAL, NULL, 7, -EINVAL,
    "outside" },
  { "last place", LUKS_AT_SLOT (0) + LUKS_SLOT_MATERIAL, NULL,
    4040 - 500, 0, NULL },
  { "late slot", LUKS_AT_SLOT (0) + LUKS_SLOT_MATERIAL, NULL, 4040 - 499,
    -EINVAL, "outside" },
  { "slot past the end", LUKS_AT_SLOT (0) + LUKS_SLOT_MATERIAL, NULL, 4041,
    -EINVAL, "outside" },
  { "slot whose offset in 32 bits would do", LUKS_AT_SLOT (0)
    + LUKS_SLOT_MATERIAL, NULL, 0x00800008, -EINVAL, "outside" },
  { "slot far away", LUKS_AT_SLOT (7) + LUKS_SLOT_MATERIAL, NULL, 0xffffffff,
    -EINVAL, "outside" },
};

static void
test_headers (void)
{
  const uint64_t length = luks_length (&plain_spec);
  uint8_t *sound = need (malloc (length)), *bytes = need (malloc (length));
  uint8_t key[LUKS_MAX_KEY_BYTES];
  struct luks_header h;

  make_luks (&plain_spec, sound, key);
  check (length == 512 * 4040, "the maker's length is %" PRIu64, length);
  for (size_t i = 0; i < sizeof header_cases / sizeof header_cases[0]; i++) {
    const struct header_case *c = &header_cases[i];
    int r;

    memcpy (bytes, sound, length);
    if (c->text)
      strcpy ((char *) bytes + c->at, c->text);
    else
      put_be32 (bytes + c->at, c->number);
    last_message[0] = '\0';
    r = luks_header_parse ("disk", bytes, length, &h);
    check (r == c->result, "%s: %d instead of %d (%s)", c->what, r, c->result,
           last_message);
    check (c->message == NULL || strstr (last_message, c->message),
           "%s: \"%s\"", c->what, last_message);
  }

  memcpy (bytes, sound, length);
  bytes[LUKS_AT_VERSION + 1] = 2;
  check (luks_header_parse ("disk", bytes, length, &h) == -ENOTSUP
         && strstr (last_message, "LUKS version 2"), "version 2");

  /* Names without an end: cipher, mode, hash. */
  for (unsigned at = LUKS_AT_CIPHER; at <= LUKS_AT_HASH; at += 32) {
    memcpy (bytes, sound, length);
    memset (bytes + at, 'x', 32);
    check (luks_header_parse ("disk", bytes, length, &h) == -EINVAL
           && strstr (last_message, "no end"), "no end at %u", at);
  }

  memcpy (bytes, sound, length);
  put_be32 (bytes + LUKS_AT_SLOT (0), 0xdead);
  check (luks_header_parse ("disk", bytes, length, &h) == 0, "one slot");
  put_be32 (bytes + LUKS_AT_SLOT (7), 0xdead);
  check (luks_header_parse ("disk", bytes, length, &h) == -EINVAL
         && strstr (last_message, "no key slot in use"), "no slot");

  check (luks_header_parse ("disk", sound, 591, &h) == -EINVAL
         && strstr (last_message, "cut short"), "591 bytes");
  check (luks_header_parse ("disk", sound, length - 512 * 4, &h) == 0,
         "the last slot's padding is needed");
  check (luks_header_parse ("disk", sound, length - 512 * 4 - 1, &h)
         == -EINVAL, "the last slot is cut short");
  free (sound);
  free (bytes);
}

/* --- keys --- */

/* A file with the header at this offset. */
#define HEADER_AT 1024

static void
make_file (struct memory_file *f, const struct luks_spec *spec, uint8_t *key)
{
  const uint64_t length = luks_length (spec);
  uint8_t *bytes = need (malloc (length));

  make_luks (spec, bytes, key);
  memory_file_write (f, bytes, length, HEADER_AT);
  free (bytes);
}

static int
find_key (struct memory_file *f, const struct luks_spec *spec,
          const char *phrase, uint8_t *key)
{
  struct store *store = store_memory_new (f, NULL, MEMORY_IMAGE, false);
  struct luks_header h;
  int r;

  r = luks_header_parse ("disk", f->bytes + HEADER_AT, luks_length (spec), &h);
  check (r == 0, "the maker's header is refused: %s", last_message);
  if (r == 0)
    r = luks_find_key (store, HEADER_AT, &h, phrase, key);
  store_close (store);
  return r;
}

static void
test_keys (void)
{
  static const struct luks_spec specs[] = {
    { "xts-plain64", "sha256", 64, 1 | 1 << 7, 3, 1 },
    { "xts-plain64", "sha1", 64, 1 | 1 << 7, 1, 2 },
    { "xts-plain", "sha512", 32, 1 | 1 << 7, 10, 3 },
    { "xts-essiv:sha256", "sha1", 32, 1 | 1 << 7, 10, 4 },
    { "cbc-essiv:sha256", "sha256", 16, 1 | 1 << 7, 4, 5 },
    { "cbc-plain64", "sha512", 32, 1 | 1 << 7, 5, 6 },
    { "cbc-plain", "sha1", 16, 1 | 1 << 7, 5, 7 },
  };

  for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
    const struct luks_spec *s = &specs[i];
    uint8_t key[LUKS_MAX_KEY_BYTES], found[LUKS_MAX_KEY_BYTES];
    static const uint8_t none[LUKS_MAX_KEY_BYTES];
    struct memory_file f = { 0 };

    make_file (&f, s, key);
    check (find_key (&f, s, "phrase 0", found) == 0
           && memcmp (key, found, s->key_bytes) == 0, "spec %zu, slot 0", i);
    check (find_key (&f, s, "phrase 7", found) == 0
           && memcmp (key, found, s->key_bytes) == 0, "spec %zu, slot 7", i);
    /* The phrase of a slot that is not in use; and nothing of the key is left
     * where it was searched for.
     */
    check (find_key (&f, s, "phrase 3", found) == -EACCES, "spec %zu", i);
    check (memcmp (found, none, s->key_bytes) == 0, "spec %zu: remains", i);
    check (strstr (last_message, "qcow2ext-passphrase=")
           && !strstr (last_message, "phrase 3"), "\"%s\"", last_message);

    /* Each stripe is needed. */
    f.bytes[HEADER_AT + 8 * 512 + 1999 * s->key_bytes] ^= 1;
    check (find_key (&f, s, "phrase 0", found) == -EACCES,
           "spec %zu: a damaged stripe", i);
    memory_file_free (&f);
  }
}

/* What would take more than a minute is refused at once: for a slot, for the
 * digest, and for all of them together.
 */
static void
test_iterations (void)
{
  struct luks_spec spec = plain_spec;
  uint8_t key[LUKS_MAX_KEY_BYTES];
  struct memory_file f = { 0 };
  uint8_t *slot;
  const clock_t begin = clock (); /* of the processor */
  uint32_t low = 1000, high;
  uint64_t iterations;
  char count[40];

  spec.slots = 0xff;
  make_file (&f, &spec, key);
  slot = f.bytes + HEADER_AT + LUKS_AT_SLOT (7) + LUKS_SLOT_ITERATIONS;
  put_be32 (slot, UINT32_MAX);
  check (find_key (&f, &spec, "phrase 1", key) == -E2BIG
         && strstr (last_message, "seconds"), "a slot: \"%s\"", last_message);
  put_be32 (slot, spec.iterations);
  put_be32 (f.bytes + HEADER_AT + LUKS_AT_DIGEST_ITERATIONS, UINT32_MAX);
  check (find_key (&f, &spec, "phrase 1", key) == -E2BIG, "the digest");
  put_be32 (f.bytes + HEADER_AT + LUKS_AT_DIGEST_ITERATIONS, spec.iterations);

  /* Each attempt takes both. */
  put_be32 (slot, UINT32_MAX);
  put_be32 (f.bytes + HEADER_AT + LUKS_AT_DIGEST_ITERATIONS, UINT32_MAX);
  check (find_key (&f, &spec, "phrase 1", key) == -E2BIG, "both");
  iterations = UINT64_C (2) * UINT32_MAX /* a key is two blocks */
    + 2 * 7 * spec.iterations + UINT64_C (8) * UINT32_MAX;
  snprintf (count, sizeof count, "(%" PRIu64 " iterations", iterations);
  check (strstr (last_message, count), "\"%s\" and not %s", last_message,
         count);
  put_be32 (f.bytes + HEADER_AT + LUKS_AT_DIGEST_ITERATIONS, spec.iterations);

  /* About where one slot would be too much, eight are with a quarter. */
  high = UINT32_MAX / 2;
  put_be32 (slot, high);
  check (find_key (&f, &spec, "phrase 1", key) == -E2BIG, "half as much");
  sscanf (strstr (last_message, "about ") + 6, "%" SCNu32, &low);
  check (low > 60, "%u seconds", low);
  high = (uint64_t) high * 60 / low / 4;
  for (unsigned i = 0; i < 8; i++)
    put_be32 (f.bytes + HEADER_AT + LUKS_AT_SLOT (i) + LUKS_SLOT_ITERATIONS,
              high);
  check (find_key (&f, &spec, "wrong", key) == -E2BIG, "all together");
  check (clock () - begin <= 2 * CLOCKS_PER_SEC, "it took too long");
  memory_file_free (&f);
}

/* A clock that stands still says nothing, however much is computed: numbers of
 * iterations grow as far as there are any, and that is the end of it.
 */
static bool clock_stands;
static unsigned long last_iterations;

int
wrap_clock_gettime (clockid_t clock, struct timespec *ts)
{
  const int r = real_clock_gettime (clock, ts);

  if (clock_stands)
    *ts = (struct timespec) { 0 };
  return r;
}

static gcry_error_t
note_iterations (const void *passphrase, size_t length, int algorithm,
                 int hash, const void *salt, size_t salt_length,
                 unsigned long iterations, size_t size, void *key)
{
  (void) passphrase, (void) length, (void) algorithm, (void) hash;
  (void) salt, (void) salt_length;
  check (iterations > last_iterations, "%lu iterations", iterations);
  if (iterations <= last_iterations)
    return GPG_ERR_INV_VALUE;
  last_iterations = iterations;
  memset (key, 0, size);
  return 0;
}

static void
test_still_clock (void)
{
  struct luks_spec spec = plain_spec;
  uint8_t key[LUKS_MAX_KEY_BYTES];
  struct memory_file f = { 0 };

  spec.iterations = 100;
  make_file (&f, &spec, key);
  real = libgcrypt;
  libgcrypt.kdf_derive = note_iterations;
  clock_stands = true;
  check (find_key (&f, &spec, "phrase 0", key) == -E2BIG, "a still clock");
  clock_stands = false;
  libgcrypt = real;
  memory_file_free (&f);
}

/* --- the store --- */

#define DISK 65536

static struct store *inner;     /* of the one that is open */

static struct store *
open_crypt (struct memory_file *f, struct memory_log *log,
            const struct vector *v)
{
  inner = store_memory_new (f, log, MEMORY_IMAGE, false);
  return need (store_crypt_new (inner, vector_cipher (v)));
}

static void
close_crypt (struct store *s)
{
  store_close (s);
  store_close (inner);
}

static uint32_t
random_below (uint32_t n)
{
  static uint64_t state = 20;

  state = state * UINT64_C (6364136223846793005) + 1442695040888963407;
  return (state >> 33) % n;
}

/* All bytes decrypted apart. */
static void
decrypt_file (const struct memory_file *f, const struct vector *v,
              uint8_t *plain)
{
  struct cipher *c = vector_cipher (v);

  memset (plain, 0, DISK);
  memcpy (plain, f->bytes, f->size);
  for (uint64_t s = 0; s < DISK / 512; s++)
    cipher_decrypt (c, plain + s * 512, plain + s * 512, 512, s);
  cipher_free (c);
}

static void
test_requests (const struct vector *v)
{
  uint8_t *model = need (malloc (DISK)), *buf = need (malloc (DISK));
  struct memory_file f = { 0 };
  struct store *s;

  memory_file_resize (&f, DISK - 4096); /* it grows */
  s = open_crypt (&f, NULL, v);
  decrypt_file (&f, v, model);  /* what zeros decrypt to */
  for (unsigned i = 0; i < 2000; i++) {
    const uint32_t offset = random_below (DISK);
    const uint32_t longest = random_below (2) ? 40 : DISK - offset;
    const uint32_t n = 1 + random_below (longest < DISK - offset
                                         ? longest : DISK - offset);
    int r;

    switch (random_below (3)) {
    case 0:
      for (uint32_t j = 0; j < n; j++)
        buf[j] = model[offset + j] = random_below (256);
      r = store_pwrite (s, buf, n, offset);
      break;
    case 1:
      memset (model + offset, 0, n);
      r = store_zero (s, n, offset, random_below (2) ? STORE_ZERO_PUNCH : 0);
      break;
    default:
      r = store_pread (s, buf, n, offset);
      check (memcmp (buf, model + offset, n) == 0, "%u bytes at %u", n,
             offset);
    }
    check (r == 0, "request %u: %d", i, r);
  }
  decrypt_file (&f, v, buf);
  check (memcmp (buf, model, DISK) == 0, "the file is not the disk");
  close_crypt (s);
  memory_file_free (&f);
  free (model);
  free (buf);
}

static void
test_properties (void)
{
  struct memory_file f = { 0 };
  struct store *s;
  uint8_t buf[512];
  unsigned type;
  uint64_t end;
  bool zeros = true;

  memory_file_resize (&f, DISK);
  s = open_crypt (&f, NULL, &vectors[0]);
  check (s->encrypted && !s->fixed_size && !s->readonly, "properties");
  check (store_extent (s, 0, &end, &type) == 0 && type == EXTENT_DATA
         && end > 0, "a hole is said to be %u", type);
  check (store_zero (s, 512, 0, STORE_ZERO_FAST) == -ENOTSUP, "fast zero");
  check (store_pread (s, buf, sizeof buf, 0) == 0, "read");
  for (unsigned i = 0; i < sizeof buf; i++)
    zeros &= buf[i] == 0;
  check (!zeros, "a hole reads as zeros");
  close_crypt (s);
  memory_file_free (&f);
}

/* What is to be cached below are the sectors that a read would ask for. */
static struct { uint64_t count, offset; } cached;

static int
note_cache (struct store *s, uint64_t count, uint64_t offset)
{
  (void) s;
  cached.count = count;
  cached.offset = offset;
  return 0;
}

static void
test_cache (void)
{
  static const struct {
    uint64_t count, offset, wanted, wanted_offset;
  } ranges[] = {
    { 512, 1024, 512, 1024 }, { 1, 1024, 512, 1024 }, { 1, 1535, 512, 1024 },
    { 2, 1535, 1024, 1024 }, { 10000, 5000, 10752, 4608 },
  };
  static const struct store_ops ops = { .cache = note_cache };
  struct store below = { .ops = &ops };
  struct store *s = need (store_crypt_new (&below,
                                           vector_cipher (&vectors[0])));

  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
    check (store_cache (s, ranges[i].count, ranges[i].offset) == 0,
           "cache %zu", i);
    check (cached.count == ranges[i].wanted
           && cached.offset == ranges[i].wanted_offset,
           "cache %zu: %" PRIu64 " bytes at %" PRIu64, i, cached.count,
           cached.offset);
  }
  store_close (s);
}

/* More than is written at once. */
static void
test_large (void)
{
  const size_t n = (3 << 20) + 77;
  uint8_t *a = need (malloc (n)), *b = need (malloc (n));
  struct memory_file f = { 0 };
  struct store *s = open_crypt (&f, NULL, &vectors[8]);

  for (size_t i = 0; i < n; i++)
    a[i] = i * i >> 7;
  check (store_pwrite (s, a, n, 1000) == 0
         && store_pread (s, b, n, 1000) == 0 && memcmp (a, b, n) == 0,
         "3 MiB");
  check (store_zero (s, n, 1000, 0) == 0
         && store_pread (s, b, n, 1000) == 0, "3 MiB of zeros");
  for (size_t i = 0; i < n; i++)
    if (b[i]) {
      check (false, "no zero at %zu", i);
      break;
    }
  close_crypt (s);
  memory_file_free (&f);
  free (a);
  free (b);
}

/* --- two requests on one sector --- */

/* The first one stops before it writes; the others must wait until it has
 * written, or need not, as the case may be.
 */
struct meeting {
  struct store *store;
  pthread_t thread[3];
  atomic_bool stopped, go;
  atomic_uint done;
  uint8_t buf[512];
};

static void
nap (void)
{
  nanosleep (&(struct timespec) { .tv_nsec = 1000000 }, NULL);
}

static void
stop_before_write (void *opaque, const struct memory_op *op, bool before)
{
  struct meeting *m = opaque;

  if (op->kind != MEMORY_WRITE || !before
      || atomic_exchange (&m->stopped, true))
    return;
  while (!m->go)
    nap ();
}

static void *
write_some (void *arg)
{
  struct meeting *m = arg;

  store_pwrite (m->store, "XY", 2, 512 + 10);
  return NULL;
}

static void *
read_others (void *arg)
{
  struct meeting *m = arg;

  store_pread (m->store, m->buf, 100, 512 + 400);
  m->done++;
  return NULL;
}

static void *
write_others (void *arg)
{
  struct meeting *m = arg;

  store_pwrite (m->store, "Z", 1, 512 + 500);
  m->done++;
  return NULL;
}

static void
test_meeting (const struct vector *v)
{
  static struct meeting m;
  struct memory_file f = { 0 };
  struct memory_log log;
  uint8_t buf[512];

  memset (&m, 0, sizeof m);
  memory_log_init (&log);
  m.store = open_crypt (&f, &log, v);
  store_zero (m.store, DISK, 0, 0);
  log.hook = stop_before_write;
  log.opaque = &m;
  pthread_create (&m.thread[0], NULL, write_some, &m);
  while (!m.stopped)
    nap ();
  pthread_create (&m.thread[1], NULL, read_others, &m);
  pthread_create (&m.thread[2], NULL, write_others, &m);
  /* A neighbour is not affected. */
  check (store_pread (m.store, buf, 512, 0) == 0
         && store_pwrite (m.store, buf, 512, 1024) == 0, "neighbours");
  for (int i = 0; i < 50; i++)
    nap ();
  check (m.done == 0, "%u did not wait", m.done);
  m.go = true;
  for (int i = 0; i < 3; i++)
    pthread_join (m.thread[i], NULL);
  for (int i = 0; i < 100; i++)
    check (m.buf[i] == 0, "byte %d was read as %02x", i, m.buf[i]);
  store_pread (m.store, buf, 512, 512);
  check (buf[10] == 'X' && buf[11] == 'Y' && buf[500] == 'Z',
         "a change was lost");
  close_crypt (m.store);
  memory_log_clear (&log);
  memory_file_free (&f);
}

/* --- all of it --- */

static atomic_uint slot_reads;

/* How often somebody searches for the key: reads of key slots. */
static void
count_slots (void *opaque, const struct memory_op *op, bool before)
{
  (void) opaque;
  if (before && op->kind == MEMORY_READ && op->length > 10000)
    slot_reads++;
}

struct opening {
  struct memory_file *file;
  struct memory_log *log;
  uint64_t length;
  int result;
};

static void *
open_one (void *arg)
{
  struct opening *o = arg;
  struct store *file = store_memory_new (o->file, o->log, MEMORY_IMAGE, false);
  struct store *crypt = NULL;

  o->result = encryption_open (NULL, file, HEADER_AT, o->length, file,
                               &crypt);
  if (o->result == 0)
    store_close (crypt);
  store_close (file);
  return NULL;
}

static void
test_opening (void)
{
  struct luks_spec spec = plain_spec;
  uint8_t key[LUKS_MAX_KEY_BYTES];
  struct memory_file f = { 0 };
  struct memory_log log;
  pthread_t thread[4];
  struct opening o[4];

  spec.slots = 1;
  spec.iterations = 100000;
  make_file (&f, &spec, key);
  memory_log_init (&log);
  log.hook = count_slots;
  for (int i = 0; i < 4; i++)
    o[i] = (struct opening) { &f, &log, luks_length (&spec), 1 };

  open_one (&o[0]);
  check (o[0].result == -EACCES
         && strstr (last_message, "qcow2ext-passphrase="), "no pass phrase");
  check (encryption_set_passphrase (strdup ("phrase 0")) == 0, "set");
  for (int i = 0; i < 4; i++)
    pthread_create (&thread[i], NULL, open_one, &o[i]);
  for (int i = 0; i < 4; i++) {
    pthread_join (thread[i], NULL);
    check (o[i].result == 0, "thread %d: %d", i, o[i].result);
  }
  open_one (&o[0]);
  check (slot_reads == 1, "the key was searched for %u times", slot_reads);

  /* With other bytes it is another header. */
  f.bytes[HEADER_AT + LUKS_AT_DIGEST] ^= 1;
  open_one (&o[0]);
  check (o[0].result == -EACCES && slot_reads == 2, "a changed header");
  f.bytes[HEADER_AT + LUKS_AT_DIGEST] ^= 1;

  /* The slot is cut off by the end of the file, whatever the length says. */
  f.bytes[HEADER_AT + LUKS_AT_SLOT (0) + 8] ^= 1;
  memory_file_resize (&f, HEADER_AT + 8 * 512 + 256000 - 1);
  open_one (&o[0]);
  check (o[0].result == -EINVAL, "cut off: %d", o[0].result);
  memory_file_resize (&f, HEADER_AT - 100);
  open_one (&o[0]);
  check (o[0].result == -EINVAL, "no header: %d", o[0].result);

  encryption_unload ();
  memory_log_clear (&log);
  memory_file_free (&f);
}

int
main (void)
{
  report_set_sink (sink);
  if (load_libgcrypt () == -1) {
    puts ("FAIL: libgcrypt cannot be loaded");
    return EXIT_FAILURE;
  }
  test_ciphers ();
  test_contexts ();
  test_pbkdf2 ();
  test_headers ();
  test_keys ();
  test_iterations ();
  test_still_clock ();
  for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
    test_requests (&vectors[i]);
    test_meeting (&vectors[i]);
  }
  test_properties ();
  test_cache ();
  test_large ();
  test_opening ();
  printf ("%u failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif /* HAVE_LIBGCRYPT */
