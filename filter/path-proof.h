/* qcow2ext: do the layers below lead straight to the file?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_PATH_PROOF_H
#define QCOW2EXT_PATH_PROOF_H

#include <errno.h>

#include <nbdkit-filter.h>

#include "base/store.h"

/* Two ways to one file, if all is well. */
struct path {
  nbdkit_backend *backend;      /* through the layers below */
  const char *export;           /* see store-below.h */
  bool serialize;               /* see store-below.h */
  struct store *own;            /* our own descriptor; NULL: none */
  uint64_t size;                /* of the file when it was opened, bytes */
  uint64_t left;                /* and what a proof left it at that could not
                                   make it shorter again; 0: nothing */
};

/* What a proof fails with that shows that the path is not clear; anything
 * else is an error of its own.
 */
#define PATH_NOT_CLEAR EILSEQ

/* Somebody else has written to the file since it was opened. */
#define PATH_CHANGED ESTALE

/* Does what is read through the layers below look like the file?  Changes
 * nothing.  Returns 1, 0 or -errno.
 */
int path_looks_clear (struct store *below, struct store *own);

/* Proves it, with writes to length bytes from offset, which nothing refers
 * to; with grow, they lie past the end of the file.  A file that has another
 * size than it had is left alone.  Returns 0, -PATH_NOT_CLEAR, -PATH_CHANGED
 * or -errno.
 */
int path_prove (struct path *path, uint64_t offset, uint64_t length,
                bool grow);

#endif /* QCOW2EXT_PATH_PROOF_H */
