/* qcow2ext: what the name of an export says.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_EXPORT_NAME_H
#define QCOW2EXT_EXPORT_NAME_H

#include <stdbool.h>
#include <stddef.h>

/* What of an image is exported. */
enum export_kind {
  EXPORT_DISK,
  EXPORT_SNAPSHOT,
  EXPORT_BITMAP,                /* the disk, with the bitmap as extents */
  EXPORT_LIST,                  /* nothing: to see what there is */
};

/* Names of snapshots and bitmaps begin so. */
#define EXPORT_SNAPSHOT_PREFIX "snapshot:"
#define EXPORT_BITMAP_PREFIX "bitmap:"

struct export_name {
  enum export_kind kind;
  size_t file_bytes;            /* of the name of the image's file, with which
                                   the name begins in a directory */
  const char *part;             /* within the name: what follows the prefix;
                                   NULL for the disk */
};

/* Can a file of that name be an image of a directory: one component, valid
 * UTF-8, nothing in it that could forge a line of a log?
 */
bool export_name_is_file (const char *name);

/* Takes a name apart: "", snapshot:ID or bitmap:NAME; in a directory FILE,
 * FILE/snapshot:ID or FILE/bitmap:NAME.  Those of snapshots and bitmaps only if
 * these are exported.  Returns false if it is no such name.
 */
bool export_name_parse (const char *name, bool in_directory, bool parts,
                        struct export_name *parsed);

#endif /* QCOW2EXT_EXPORT_NAME_H */
