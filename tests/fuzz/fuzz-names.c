/* qcow2ext: fuzzes names of exports, and text that is shown.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An input is a byte of which bit 0 says whether a directory is served, and bit
 * 1 whether snapshots and bitmaps are; then a name.  What is let through must
 * be as export-name.h promises, and what is not must not be such a name.
 */

#include "build-config.h"

#include <iconv.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/printable.h"
#include "export-name.h"
#include "fuzz.h"

#define NAME_ROOM 4200

/* Asks the C library. */
static bool
is_text (const char *s, size_t bytes)
{
  static iconv_t to_ucs4 = (iconv_t) -1;
  uint32_t code[NAME_ROOM];
  char *in = (char *) s, *out = (char *) code;
  size_t room = sizeof code;

  if (to_ucs4 == (iconv_t) -1)
    to_ucs4 = iconv_open ("WCHAR_T", "UTF-8");
  if (to_ucs4 == (iconv_t) -1)
    fuzz_fail ("iconv_open");
  iconv (to_ucs4, NULL, NULL, NULL, NULL);
  if (iconv (to_ucs4, &in, &bytes, &out, &room) == (size_t) -1)
    return false;
  for (const uint32_t *c = code; (char *) c < out; c++)
    if (*c < 32 || (*c >= 0x7f && *c < 0xa0) || (*c | 1) == 0x2029
        || *c > 0x10ffff)       /* which iconv lets through */
      return false;
  return true;
}

static bool
is_file (const char *s, size_t bytes)
{
  return bytes > 0 && bytes <= NAME_MAX && memchr (s, '/', bytes) == NULL
    && (bytes > 2 || strspn (s, ".") < bytes) && is_text (s, bytes);
}

static bool
is_part (const char *s)
{
  return strncmp (s, "snapshot:", 9) == 0 || strncmp (s, "bitmap:", 7) == 0;
}

static bool
is_name (const char *s, bool in_directory, bool parts)
{
  const char *slash = parts ? strchr (s, '/') : NULL;

  if (!in_directory)
    return *s == '\0' || (parts && is_part (s));
  return is_file (s, slash ? (size_t) (slash - s) : strlen (s))
    && (slash == NULL || is_part (slash + 1));
}

static void
check_parsed (const char *name, const struct export_name *n)
{
  const char *rest = name + n->file_bytes;

  if (n->kind == EXPORT_DISK ? n->part || *rest
      : n->part <= name || n->part > name + strlen (name)
        || n->part[-1] != ':')
    fuzz_fail ("\"%s\": what is exported is wrong", name);
}

static void
check_mask (const char *name)
{
  char masked[NAME_ROOM];

  strcpy (masked, name);
  printable_mask (masked);
  if (strlen (masked) != strlen (name)
      || !is_text (masked, strlen (masked)))
    fuzz_fail ("\"%s\" is shown", masked);
  if (is_text (name, strlen (name)) && strcmp (masked, name) != 0)
    fuzz_fail ("\"%s\" is masked", name);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct export_name parsed;
  bool in_directory, parts;
  char *name;

  if (size == 0 || size > NAME_ROOM - 1)
    return 0;
  in_directory = data[0] & 1;
  parts = data[0] & 2;
  name = malloc (size);
  if (name == NULL)
    abort ();
  memcpy (name, data + 1, size - 1);
  name[size - 1] = '\0';
  if (export_name_parse (name, in_directory, parts, &parsed)
      != is_name (name, in_directory, parts))
    fuzz_fail ("\"%s\" is judged wrongly", name);
  if (is_name (name, in_directory, parts))
    check_parsed (name, &parsed);
  if (export_name_is_file (name) != is_file (name, strlen (name)))
    fuzz_fail ("\"%s\" is judged wrongly as a file", name);
  check_mask (name);
  free (name);
  return 0;
}

/* One name for each of the images that seeds are made of. */
size_t
fuzz_seed (const struct hostile_base *base, const struct memory_file *image,
           uint8_t *input, size_t room)
{
  static const char *const names[] = {
    "\3disk.qcow2", "\1..", "\3a/snapshot:1", "\3\xc3\xa4/bitmap:b0",
    "\2snapshot:\xe2\x82\xac", "\2bitmap:\n", "\1\xf0\x9f\x92\xbe.img",
    "\3.a/bitmap:", "\1\xe2\x80\xa8", "\3\xc2\x9b/snapshot:", "\1...",
  };
  static size_t n;
  const char *name = names[n++ % (sizeof names / sizeof names[0])];

  (void) base, (void) image;
  if (strlen (name) > room)
    return 0;
  memcpy (input, name, strlen (name));
  return strlen (name);
}
