/* qcow2ext: what follows the fixed part of the image header.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/report.h"
#include "disk/header-extensions.h"
#include "disk/table.h"

#define bad(fmt, ...)                                                   \
  (report_error ("%s: " fmt, store->name, ##__VA_ARGS__), -EINVAL)

int
header_copy_name (const struct store *store, const char *what,
                  const void *data, size_t len, size_t max, char **name)
{
  const uint8_t *bytes = data;

  while (len > 0 && bytes[len - 1] == 0)
    len--;
  if (len == 0)
    return 0;
  if (len > max)
    return bad ("the %s is too long (%zu bytes, at most %zu are allowed)",
                what, len, max);
  if (memchr (data, 0, len))
    return bad ("the %s holds a NUL byte with others behind it", what);
  if (*name)
    return bad ("the %s is given twice", what);
  *name = strndup (data, len);
  if (*name == NULL)
    return -ENOMEM;
  return 0;
}

static int
read_bitmaps_extension (const struct store *store, struct header *h,
                        const void *data, size_t len)
{
  struct qcow2_bitmaps_extension ext;

  if (len != sizeof ext)
    return bad ("the bitmaps extension has an invalid length (%zu)", len);
  if (h->has_bitmaps)
    return bad ("the bitmaps extension is given twice");
  memcpy (&ext, data, sizeof ext);

  h->has_bitmaps = true;
  h->nb_bitmaps = be32_get (ext.nb_bitmaps);
  h->bitmap_directory_size = be64_get (ext.directory_size);
  h->bitmap_directory_offset = be64_get (ext.directory_offset);

  /* Without the autoclear bit somebody who did not know bitmaps has written
   * to the image since: the extension means nothing then.
   */
  if (!(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
    return 0;

  if (be32_get (ext.reserved) != 0)
    return bad ("the bitmaps extension has a reserved field that is not 0");
  if (h->nb_bitmaps == 0 || h->nb_bitmaps > QCOW2_MAX_BITMAPS)
    return bad ("the number of bitmaps is out of range (%" PRIu32
                ", allowed are 1 to %d)", h->nb_bitmaps, QCOW2_MAX_BITMAPS);
  if (h->bitmap_directory_size == 0)
    return bad ("the bitmap directory is empty");
  return table_check_place (store, h->cluster_bits, "bitmap directory",
                            h->bitmap_directory_offset,
                            h->bitmap_directory_size, 1,
                            QCOW2_MAX_BITMAP_DIR_BYTES);
}

static int
read_crypto_extension (const struct store *store, struct header *h,
                       const void *data, size_t len)
{
  struct qcow2_crypto_extension ext;

  if (!h->encrypted)
    return bad ("there is an encryption extension, but the image is not "
                "encrypted with LUKS");
  if (len != sizeof ext)
    return bad ("the encryption extension has an invalid length (%zu)", len);
  if (h->crypto_length)
    return bad ("the encryption extension is given twice");
  memcpy (&ext, data, sizeof ext);
  h->crypto_offset = be64_get (ext.offset);
  h->crypto_length = be64_get (ext.length);
  if (h->crypto_offset == 0 || h->crypto_length == 0)
    return bad ("the LUKS header overlaps the header, or is empty");
  return table_check_place (store, h->cluster_bits, "LUKS header",
                            h->crypto_offset, h->crypto_length, 1,
                            QCOW2_MAX_CRYPTO_BYTES);
}

int
header_read_extensions (const struct store *store, struct header *h,
                        const uint8_t *data, size_t pos, size_t end,
                        const uint8_t **names, size_t *names_len)
{
  *names = NULL;
  *names_len = 0;

  while (end - pos >= sizeof (struct qcow2_extension)) {
    struct qcow2_extension ext;
    uint32_t type, len;
    int r = 0;

    memcpy (&ext, data + pos, sizeof ext);
    type = be32_get (ext.type);
    len = be32_get (ext.length);
    pos += sizeof ext;
    if (type == QCOW2_EXT_END)
      break;
    if (len > end - pos)
      return bad ("the header extension 0x%08" PRIx32 " is too long (%" PRIu32
                  " bytes where %zu are left)", type, len, end - pos);

    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
      r = header_copy_name (store, "backing format name", data + pos, len,
                            QCOW2_MAX_FORMAT_NAME, &h->backing_format);
      break;
    case QCOW2_EXT_DATA_FILE:
      r = header_copy_name (store, "name of the external data file",
                            data + pos, len, QCOW2_MAX_NAME, &h->data_file);
      break;
    case QCOW2_EXT_BITMAPS:
      r = read_bitmaps_extension (store, h, data + pos, len);
      break;
    case QCOW2_EXT_CRYPTO:
      r = read_crypto_extension (store, h, data + pos, len);
      break;
    case QCOW2_EXT_FEATURE_NAMES:
      *names = data + pos;
      *names_len = len;
      break;
    }
    if (r < 0)
      return r;

    /* The padding of the last extension may be missing. */
    if (end - pos - len < (-len & 7))
      break;
    pos += len + (-len & 7);
  }
  return 0;
}
