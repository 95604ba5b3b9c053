/* qcow2ext: files of which changes were lost.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A failure outlives the clients.  After a flush that failed, the page
 * cache holds what the disk does not, and another flush succeeds.  A client
 * that connects then would be told that all is well.  So the image is not
 * written to any more by this server.  The next server drops the pages before
 * it reads them, and sees what is on the disk, as far as the kernel drops them.
 *
 * Lock: failures_lock guards the list.  No other lock is taken under it, and
 * no I/O is done.
 */

#include "build-config.h"

#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "failures.h"

static pthread_mutex_t failures_lock = PTHREAD_MUTEX_INITIALIZER;
static struct image_key *failed;
static size_t nr_failed;
static bool all_failed;         /* there was no memory to note which */

struct image_key
image_key_of (int fd, const struct stat *st)
{
  struct image_key key = { .is_known = fd != -1 };

  if (fd != -1) {
    key.id = file_id_of (st);
    if (ioctl (fd, FS_IOC_GETVERSION, &key.generation) == -1)
      key.generation = 0;
  }
  return key;
}

bool
image_key_equal (const struct image_key *a, const struct image_key *b)
{
  return a->is_known == b->is_known && file_id_equal (&a->id, &b->id)
    && a->generation == b->generation;
}

/* Under the lock. */
static bool
has (const struct image_key *key)
{
  for (size_t i = 0; i < nr_failed; i++)
    if (image_key_equal (&failed[i], key))
      return true;
  return all_failed;
}

bool
failures_has (const struct image_key *key)
{
  LOCK_FOR_SCOPE (&failures_lock);
  return has (key);
}

void
failures_add (const struct image_key *key)
{
  struct image_key *longer;

  LOCK_FOR_SCOPE (&failures_lock);
  if (has (key))
    return;
  longer = realloc (failed, (nr_failed + 1) * sizeof *longer);
  if (longer == NULL) {
    all_failed = true;
    return;
  }
  failed = longer;
  failed[nr_failed++] = *key;
}

void
failures_free (void)
{
  free (failed);
  failed = NULL;
  nr_failed = 0;
}
