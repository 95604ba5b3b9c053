/* qcow2ext: where the operator says that a file is.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_LOCATION_H
#define QCOW2EXT_LOCATION_H

#include <stdbool.h>

struct location {
  char *name;                   /* an absolute path, or a URI */
  bool is_nbd;                  /* the latter: of an NBD server's export */
};

/* Makes a location of what a parameter says; libnbd is loaded if it is needed.
 * The caller frees the name.  Returns 0, or -1 (reported).
 */
int location_parse (const char *key, const char *value, struct location *l);

#endif /* QCOW2EXT_LOCATION_H */
