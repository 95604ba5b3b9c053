/* qcow2ext: files that an image names.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_NAMED_FILE_H
#define QCOW2EXT_NAMED_FILE_H

#include "config.h"
#include "image/image.h"
#include "store-file.h"

/* The directories of an image: as its path says, and, if that differs, where
 * symbolic links lead.  Both NULL: it is not a local file.
 */
struct place {
  char *dir[2];
};

/* The files of one chain while it is being opened: who they are, and where
 * names in the layer that is opened next are looked for.
 */
struct named_files {
  bool writable;                /* open the served image's data file so, if
                                   we may */
  bool lock;                    /* lock backing files */
  bool connect;                 /* ask an NBD server that has the data */
  struct place layer;           /* of the current layer */
  struct place tree;            /* the default tree */
  struct file_id *seen;
  size_t nr_seen;
};

/* Starts a chain whose top is the image at path (absolute), or an
 * image that is no local file (NULL).  Returns 0 or -errno.
 */
int named_files_init (struct named_files *files, const char *path,
                      const struct stat *st);
void named_files_free (struct named_files *files);

/* The engine's door to the files; opaque is the struct named_files.  Files
 * are opened for reading only, but for that one.  The policy is that of the named-file.c note.
 */
int named_open_data (void *opaque, unsigned depth, const struct store *of,
                     const char *name, struct store **store);
int named_open_backing (void *opaque, unsigned depth, const struct store *of,
                        const char *name, const char *format,
                        struct store **store, enum image_format *as);

#endif /* QCOW2EXT_NAMED_FILE_H */
