/* qcow2ext: fuzzes the LUKS header.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is the header; the last two bytes say how long it and its key slots
 * may be, in sectors.  What luks_header_parse lets through must be as
 * disk/luks-header.h promises.
 */

#include "build-config.h"

#include <string.h>

#include "base/report.h"
#include "disk/luks-header.h"
#include "fuzz.h"

static unsigned messages;

static void
sink (enum report_level level, const char *message)
{
  (void) level;
  messages++;
  if (strlen (message) > 2047)
    fuzz_fail ("a message of %zu bytes", strlen (message));
}

static void
check (const struct luks_header *h, uint64_t length)
{
  const unsigned aes = h->mode == LUKS_XTS ? h->key_bytes / 2 : h->key_bytes;
  unsigned active = 0;

  if ((h->mode != LUKS_XTS && h->mode != LUKS_CBC)
      || (aes != 16 && aes != 32) || h->iv > LUKS_IV_ESSIV_SHA256
      || h->hash > LUKS_SHA512 || h->key_bytes > LUKS_MAX_KEY_BYTES
      || h->digest_iterations == 0)
    fuzz_fail ("a field is out of range");
  for (unsigned i = 0; i < LUKS_SLOTS; i++) {
    const struct luks_slot *s = &h->slot[i];

    if (!s->active)
      continue;
    active++;
    if (s->iterations == 0 || s->material < 4096 || s->material % 512
        || s->material > length
        || luks_material_bytes (h) > length - s->material)
      fuzz_fail ("slot %u is out of range", i);
  }
  if (active == 0)
    fuzz_fail ("no slot is active");
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  uint8_t bytes[LUKS_HEADER_BYTES] = { 0 };
  struct luks_header h;
  uint64_t length = 0;
  int r;

  report_set_sink (sink);
  messages = 0;
  if (size >= 2) {
    size -= 2;
    length = (data[size] << 8 | data[size + 1]) * UINT64_C (512);
  }
  memcpy (bytes, data, size < sizeof bytes ? size : sizeof bytes);
  r = luks_header_parse ("disk", bytes, length, &h);
  if (r == 0)
    check (&h, length);
  if ((r < 0) != (messages == 1))
    fuzz_fail ("%d with %u messages", r, messages);
  return 0;
}

/* The headers of qemu-img: with its defaults, and with CBC. */
size_t
fuzz_seed (const struct hostile_base *base, const struct memory_file *image,
           uint8_t *input, size_t room)
{
  const bool cbc = strcmp (base->spec.name, "v2") == 0;
  const unsigned sectors = cbc ? 250 : 500;
  const unsigned step = (sectors + 7) / 8 * 8;

  (void) image;
  if ((!cbc && strcmp (base->spec.name, "internal") != 0)
      || room < LUKS_HEADER_BYTES + 2)
    return 0;
  memset (input, 0, LUKS_HEADER_BYTES);
  memcpy (input, "LUKS\xba\xbe\0\1aes", 11);
  strcpy ((char *) input + 40, cbc ? "cbc-essiv:sha256" : "xts-plain64");
  strcpy ((char *) input + 72, cbc ? "sha1" : "sha256");
  input[111] = cbc ? 32 : 64;
  input[166] = 1;               /* of the digest's iterations */
  for (unsigned i = 0; i < 8; i++) {
    uint8_t *slot = input + 208 + 48 * i;
    const unsigned at = 8 + i * step;

    memcpy (slot, i ? "\0\0\xde\xad" : "\0\xac\x71\xf3", 4);
    slot[6] = 2;
    slot[42] = at >> 8;
    slot[43] = at;
    slot[46] = 4000 >> 8;
    slot[47] = 4000 & 255;
  }
  input[LUKS_HEADER_BYTES] = (8 + 8 * step) >> 8;
  input[LUKS_HEADER_BYTES + 1] = 8 + 8 * step;
  return LUKS_HEADER_BYTES + 2;
}
