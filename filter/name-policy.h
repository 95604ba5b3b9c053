/* qcow2ext: what the names in an image may lead to.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_NAME_POLICY_H
#define QCOW2EXT_NAME_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "base/store.h"
#include "store-file.h"
#include "trees.h"

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
  bool lock;                    /* lock what lower layers consist of */
  bool drop_cache;              /* of the served image's data file */
  bool connect;                 /* ask NBD servers that have a file */
  int image_fd;                 /* of the served image, the caller's; -1: it is
                                   not read through other layers */
  struct place layer;           /* of the current layer */
  struct trees trees;           /* the default ones */
  struct file_id *seen;
  size_t nr_seen;
  size_t nr_asked;              /* how many layers could have a backing file */
  size_t nr_backing;            /* and have */
};

/* Starts a chain whose top is the image at path (absolute), of which st is what
 * fstat says, or an image that is no local file (NULL).  Returns 0 or -errno
 * (reported).
 */
int named_files_init (struct named_files *files, const char *path,
                      const struct stat *st);
void named_files_free (struct named_files *files);

/* Notes that the file is part of the chain.  Returns 0 or -ENOMEM. */
int named_files_add (struct named_files *files, const struct stat *st);

/* What the layer just opened at path names is relative to its directory.
 * trusted: the operator named it, so that its directories are the default trees
 * as well.  Returns 0 or -errno (reported).
 */
int named_files_enter (struct named_files *files, const char *path,
                       const struct stat *st, bool trusted);

/* The same for a layer on an NBD server, which has no directory. */
void named_files_enter_remote (struct named_files *files);

/* What an opening is about, for messages. */
struct name_request {
  bool writable;                /* open it for writing if possible */
  bool lock;
  bool is_data;                 /* it is a data file */
  bool is_top;                  /* the served image names it */
  const struct store *of;
  const char *what;             /* "external data file", "backing file" */
  const char *name;             /* as the image or the operator wrote it */
  const char *parameter;        /* that would name it outright; NULL: none */
};

/* The end of a message: what else the operator may do. */
struct name_advice {
  char text[80];
};
struct name_advice name_or_give (const struct name_request *q,
                                 const char *before);

/* Open what the operator named, and what an image named, if the policy allows
 * it.  For writing if that is wanted and allowed.  Return a descriptor of a
 * regular file or a block device, or -errno (reported).  *named is the path
 * that the name stands for, and *path the same with symbolic links resolved;
 * the caller frees them.
 */
int name_open_trusted (const struct name_request *q, struct stat *st);
int name_open_untrusted (struct named_files *files,
                         const struct name_request *q, char **named,
                         char **path, struct stat *st);

#endif /* QCOW2EXT_NAME_POLICY_H */
