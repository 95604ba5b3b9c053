/* qcow2ext: the header of LUKS version 1, validated.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A header is untrusted.  It is swapped and checked in full before anybody
 * gets to see it, and before a library is asked for a cipher by what it says.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/report.h"
#include "disk/format.h"
#include "disk/luks-header.h"

#define bad(fmt, ...)                                                   \
  (report_error ("%s: the LUKS header " fmt, name, ##__VA_ARGS__), -EINVAL)

/* What qemu-img makes of an image that we cannot read. */
#define CONVERT                                                         \
  "convert it first: qemu-img convert --object secret,id=s,file=PASSPHRASE " \
  "--image-opts driver=qcow2,encrypt.key-secret=s,file.filename=IMAGE "  \
  "-O qcow2 NEW"
#define unsupported(fmt, ...)                                           \
  (report_error ("%s: the image is encrypted with " fmt ", which is not " \
                 "supported; " CONVERT, name, ##__VA_ARGS__), -ENOTSUP)

/* As it lies on disk. */
struct disk_slot {
  be32 active;
  be32 iterations;
  uint8_t salt[LUKS_SALT_BYTES];
  be32 material;                /* sectors from the header's beginning */
  be32 stripes;
};
static_assert (sizeof (struct disk_slot) == 48, "");

struct disk_header {
  uint8_t magic[6];
  be16 version;
  char cipher[32];
  char mode[32];
  char hash[32];
  be32 payload;                 /* sectors; of no meaning in an image */
  be32 key_bytes;
  uint8_t digest[LUKS_DIGEST_BYTES];
  uint8_t digest_salt[LUKS_SALT_BYTES];
  be32 digest_iterations;
  uint8_t uuid[40];
  struct disk_slot slot[LUKS_SLOTS];
};
static_assert (offsetof (struct disk_header, payload) == 104, "");
static_assert (offsetof (struct disk_header, digest_iterations) == 164, "");
static_assert (offsetof (struct disk_header, slot) == 208, "");
static_assert (sizeof (struct disk_header) == LUKS_HEADER_BYTES, "");

static const uint8_t magic[6] = { 'L', 'U', 'K', 'S', 0xba, 0xbe };

#define SLOT_ACTIVE UINT32_C (0x00ac71f3)
#define SLOT_INACTIVE UINT32_C (0x0000dead)

/* No key material lies in front of this. */
#define FIRST_MATERIAL_SECTOR 8

static int
parse_cipher (const char *name, const struct disk_header *disk,
              struct luks_header *h)
{
  static const struct {
    const char *text;
    enum luks_mode mode;
    enum luks_iv iv;
  } modes[] = {
    { "xts-plain64", LUKS_XTS, LUKS_IV_PLAIN64 },
    { "xts-plain", LUKS_XTS, LUKS_IV_PLAIN },
    { "xts-essiv:sha256", LUKS_XTS, LUKS_IV_ESSIV_SHA256 },
    { "cbc-plain64", LUKS_CBC, LUKS_IV_PLAIN64 },
    { "cbc-plain", LUKS_CBC, LUKS_IV_PLAIN },
    { "cbc-essiv:sha256", LUKS_CBC, LUKS_IV_ESSIV_SHA256 },
  };
  const size_t nr_modes = sizeof modes / sizeof modes[0];
  unsigned bits;
  size_t i;

  h->key_bytes = be32_get (disk->key_bytes);
  for (i = 0; i < nr_modes; i++)
    if (strcmp (disk->mode, modes[i].text) == 0)
      break;
  if (strcmp (disk->cipher, "aes") != 0 || i == nr_modes)
    return unsupported ("%s-%s", disk->cipher, disk->mode);
  h->mode = modes[i].mode;
  h->iv = modes[i].iv;

  if (h->key_bytes > LUKS_MAX_KEY_BYTES)
    return bad ("claims a key of %u bytes", h->key_bytes);
  bits = h->key_bytes * 8 / (h->mode == LUKS_XTS ? 2 : 1);
  if (bits != 128 && bits != 256)
    return unsupported ("%s-%s and a key of %u bytes", disk->cipher,
                        disk->mode, h->key_bytes);
  return 0;
}

static int
parse_hash (const char *name, const struct disk_header *disk,
            struct luks_header *h)
{
  static const struct { const char *text; enum luks_hash hash; } hashes[] = {
    { "sha1", LUKS_SHA1 },
    { "sha256", LUKS_SHA256 },
    { "sha512", LUKS_SHA512 },
  };

  for (size_t i = 0; i < sizeof hashes / sizeof hashes[0]; i++)
    if (strcmp (disk->hash, hashes[i].text) == 0) {
      h->hash = hashes[i].hash;
      return 0;
    }
  return unsupported ("the hash %s", disk->hash);
}

static int
parse_slot (const char *name, const struct disk_slot *disk, unsigned number,
            uint64_t length, struct luks_header *h)
{
  struct luks_slot *slot = &h->slot[number];
  const uint32_t active = be32_get (disk->active);
  const uint32_t sector = be32_get (disk->material);

  if (active == SLOT_INACTIVE)
    return 0;
  if (active != SLOT_ACTIVE)
    return bad ("is damaged: key slot %u is neither in use nor free (0x%"
                PRIx32 ")", number, active);
  if (be32_get (disk->stripes) != LUKS_STRIPES)
    return bad ("is damaged: key slot %u has %" PRIu32 " stripes instead of "
                "%d", number, be32_get (disk->stripes), LUKS_STRIPES);

  slot->active = true;
  slot->iterations = be32_get (disk->iterations);
  slot->material = (uint64_t) sector * LUKS_SECTOR_SIZE;
  memcpy (slot->salt, disk->salt, sizeof slot->salt);
  if (slot->iterations == 0)
    return bad ("is damaged: key slot %u has no iterations", number);
  if (sector < FIRST_MATERIAL_SECTOR || slot->material > length
      || luks_material_bytes (h) > length - slot->material)
    return bad ("is damaged: key slot %u (sector %" PRIu32 ") lies outside "
                "of the header's %" PRIu64 " bytes", number, sector, length);
  return 0;
}

int
luks_header_parse (const char *name, const void *bytes, uint64_t length,
                   struct luks_header *result)
{
  struct luks_header h = { 0 };
  struct disk_header disk;
  bool any = false;
  int r;

  if (length < sizeof disk)
    return bad ("is cut short (%" PRIu64 " bytes)", length);
  memcpy (&disk, bytes, sizeof disk);
  if (memcmp (disk.magic, magic, sizeof magic) != 0)
    return bad ("is missing (there is no magic number)");
  if (be16_get (disk.version) != 1)
    return unsupported ("LUKS version %u", be16_get (disk.version));
  if (memchr (disk.cipher, 0, sizeof disk.cipher) == NULL
      || memchr (disk.mode, 0, sizeof disk.mode) == NULL
      || memchr (disk.hash, 0, sizeof disk.hash) == NULL)
    return bad ("is damaged: a name in it has no end");

  if ((r = parse_cipher (name, &disk, &h)) < 0
      || (r = parse_hash (name, &disk, &h)) < 0)
    return r;
  memcpy (h.digest, disk.digest, sizeof h.digest);
  memcpy (h.digest_salt, disk.digest_salt, sizeof h.digest_salt);
  h.digest_iterations = be32_get (disk.digest_iterations);
  if (h.digest_iterations == 0)
    return bad ("is damaged: the key's digest has no iterations");

  for (unsigned i = 0; i < LUKS_SLOTS; i++) {
    if ((r = parse_slot (name, &disk.slot[i], i, length, &h)) < 0)
      return r;
    any |= h.slot[i].active;
  }
  if (!any)
    return bad ("has no key slot in use: the image cannot be opened any more");
  *result = h;
  return 0;
}
