/* qcow2ext: internal snapshots.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_SNAPSHOT_H
#define QCOW2_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "disk/header.h"
#include "base/store.h"

struct snapshot {
  char *id, *name;              /* name may be empty */
  uint64_t l1_offset;           /* bytes; not yet checked */
  uint32_t l1_entries;          /* likewise */
  uint64_t disk_size;           /* bytes */
  uint64_t vm_state_size;       /* bytes */
  uint32_t date_sec, date_nsec; /* since the Epoch */
  uint64_t vm_clock_nsec;
};

struct snapshot_list {
  size_t count;
  uint64_t bytes;               /* of the table on disk */
  struct snapshot snapshot[];
};

/* Reads the snapshot table that h describes.  Memory is bounded by what the
 * file really holds.  Returns 0 or -errno, having reported what is wrong.
 * The caller frees the list with snapshot_list_free.
 *
 * Spec: "Snapshots".
 */
int snapshot_list_read (struct store *store, const struct header *h,
                        struct snapshot_list **list);
void snapshot_list_free (struct snapshot_list *list);

/* Finds a snapshot by ID, or else by name, as qemu-img does. */
const struct snapshot *snapshot_find (const struct snapshot_list *list,
                                      const char *id_or_name);

#endif /* QCOW2_SNAPSHOT_H */
