/* qcow2ext: what the name of an export says.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <limits.h>
#include <string.h>

#include "base/printable.h"
#include "export-name.h"

static bool
is_file (const char *name, size_t bytes)
{
  unsigned n;

  if (bytes == 0 || bytes > NAME_MAX
      || (name[0] == '.' && (bytes == 1 || (bytes == 2 && name[1] == '.'))))
    return false;
  for (size_t i = 0; i < bytes; i += n)
    if (name[i] == '/' || (n = printable_length (name + i)) == 0)
      return false;
  return true;
}

bool
export_name_is_file (const char *name)
{
  return is_file (name, strlen (name));
}

/* What comes after prefix in a name that begins with it, or NULL. */
static const char *
after (const char *name, const char *prefix)
{
  const size_t n = strlen (prefix);

  return strncmp (name, prefix, n) == 0 ? name + n : NULL;
}

static bool
parse_part (const char *name, struct export_name *parsed)
{
  if ((parsed->part = after (name, EXPORT_SNAPSHOT_PREFIX)) != NULL)
    parsed->kind = EXPORT_SNAPSHOT;
  else if ((parsed->part = after (name, EXPORT_BITMAP_PREFIX)) != NULL)
    parsed->kind = EXPORT_BITMAP;
  return parsed->part != NULL;
}

bool
export_name_parse (const char *name, bool in_directory, bool parts,
                   struct export_name *parsed)
{
  /* No file has a slash in its name. */
  const char *slash = parts ? strchr (name, '/') : NULL;

  *parsed = (struct export_name) { .kind = EXPORT_DISK };
  if (!in_directory)
    return name[0] == '\0' || (parts && parse_part (name, parsed));
  parsed->file_bytes = slash ? (size_t) (slash - name) : strlen (name);
  return is_file (name, parsed->file_bytes)
    && (slash == NULL || parse_part (slash + 1, parsed));
}
