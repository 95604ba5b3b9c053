/* qcow2ext: what follows the fixed part of the image header.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_HEADER_EXTENSIONS_H
#define QCOW2_HEADER_EXTENSIONS_H

#include <stddef.h>
#include <stdint.h>

#include "disk/header.h"

/* Walks the extensions in data[pos..end), all of which has been read, and puts
 * what they say into *h.  *names is a feature name table, in data, for use in
 * messages; NULL: there is none.  0 or -errno (reported).
 */
int header_read_extensions (const struct store *store, struct header *h,
                            const uint8_t *data, size_t pos, size_t end,
                            const uint8_t **names, size_t *names_len);

/* Copies a string that an image holds.  It need not be terminated there, but
 * some programs count the NULs that pad it.  An empty one is none.  *name is
 * NULL before, unless the string has been given.  0 or -errno (reported).
 */
int header_copy_name (const struct store *store, const char *what,
                      const void *data, size_t len, size_t max, char **name);

#endif /* QCOW2_HEADER_EXTENSIONS_H */
