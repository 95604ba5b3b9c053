/* qcow2ext: sectors that requests hold, first come, first served.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Requests that change sectors exclude all others that touch them; those that
 * only read share them.  A request waits only for those that came before it,
 * so that none starves.
 */

#ifndef QCOW2EXT_SECTOR_LOCK_H
#define QCOW2EXT_SECTOR_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct sector_range {           /* on the stack of who holds it */
  struct sector_range *next, **prev;
  uint64_t start, end;          /* bytes */
  bool change;
};

struct sector_lock {
  pthread_mutex_t lock;         /* guards the list; held for no I/O */
  pthread_cond_t dropped;
  struct sector_range *first, **last; /* in the order in which they came */
  unsigned waiting;
};

void sector_lock_init (struct sector_lock *l);
void sector_lock_destroy (struct sector_lock *l);

/* Waits until nobody who came before holds any of the bytes in the other way,
 * and takes them.  A thread holds at most one range.
 */
void sector_lock_take (struct sector_lock *l, struct sector_range *range,
                       uint64_t start, uint64_t end, bool change);
void sector_lock_drop (struct sector_lock *l, struct sector_range *range);

#endif /* QCOW2EXT_SECTOR_LOCK_H */
