/* qcow2ext: what the image's own file says that it consists of.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_OWN_HEADER_H
#define QCOW2EXT_OWN_HEADER_H

#include <stdbool.h>

#include "base/store.h"

/* Does the header in the file name that data file (or else backing file)?  The
 * descriptor stays the caller's.  Returns 1, 0, or -errno (reported, with the
 * name of the image that the store is of).
 */
int own_header_names (int fd, const struct store *of, bool is_data,
                      const char *name);

#endif /* QCOW2EXT_OWN_HEADER_H */
