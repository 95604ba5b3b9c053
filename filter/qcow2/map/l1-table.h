/* qcow2ext: changes of the L1 table.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The table itself is layer->l1, which any thread may read.  An entry changes
 * under the change lock (mapping-update.h), which guards the rest, too.
 */

#ifndef QCOW2_L1_TABLE_H
#define QCOW2_L1_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "commit/commit.h"
#include "map/layer.h"

struct l1_table {
  struct layer *layer;
  uint64_t *dirty;              /* a bit for each sector of the table */
  bool is_dirty;
  bool in_commit;               /* a commit has changes of it */
};

int l1_table_init (struct l1_table *l1, struct layer *layer);
void l1_table_destroy (struct l1_table *l1);

/* Makes an entry refer to a table at host, which is ours alone. */
void l1_table_set (struct l1_table *l1, uint32_t index, uint64_t host);

/* For commit, under the change lock. */
int l1_table_collect (const struct l1_table *l1, struct batch *batch);
void l1_table_clean (struct l1_table *l1);
void l1_table_done (struct l1_table *l1, enum commit_progress progress);

#endif /* QCOW2_L1_TABLE_H */
