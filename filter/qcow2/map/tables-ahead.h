/* qcow2ext: brings several L2 tables into memory at once.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_TABLES_AHEAD_H
#define QCOW2_TABLES_AHEAD_H

#include <stdint.h>

#include "map/layer.h"

/* As l2_cache_load, for the table of a guest offset; wanted: so many bytes from
 * there on are to be looked up.  The tables that describe these come into
 * memory, too, and more if tables are wanted in order: together, if they are
 * far away.
 */
int tables_load (struct layer *layer, uint64_t offset, uint64_t wanted,
                 const char **why);

#endif /* QCOW2_TABLES_AHEAD_H */
