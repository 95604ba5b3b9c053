/* qcow2ext: which files are open under which names.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Lock: claims_lock guards the list.  No other lock is taken under it, and no
 * I/O is done.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <nbdkit-filter.h>

#include "base/cleanup.h"
#include "claims.h"
#include "file-id.h"

struct claim {
  struct claim *next;
  const void *owner;
  const char *name;
  struct file_id id;
};

static pthread_mutex_t claims_lock = PTHREAD_MUTEX_INITIALIZER;
static struct claim *claims;

int
claims_take (const void *owner, const char *name, const struct stat *st)
{
  const struct file_id id = file_id_of (st);
  struct claim *c;

  LOCK_FOR_SCOPE (&claims_lock);
  for (c = claims; c; c = c->next)
    if (c->owner != owner && file_id_equal (&c->id, &id)) {
      nbdkit_error ("%s: the same file is open as %s; use that name, or wait "
                    "until its clients have gone", name, c->name);
      return -EBUSY;
    }
  c = malloc (sizeof *c);
  if (c == NULL) {
    nbdkit_error ("%s: malloc: %m", name);
    return -ENOMEM;
  }
  *c = (struct claim) { claims, owner, name, id };
  claims = c;
  return 0;
}

void
claims_drop (const void *owner)
{
  LOCK_FOR_SCOPE (&claims_lock);
  for (struct claim **p = &claims; *p; ) {
    struct claim *c = *p;

    if (c->owner != owner) {
      p = &c->next;
      continue;
    }
    *p = c->next;
    free (c);
  }
}

bool
claims_has (const void *owner)
{
  LOCK_FOR_SCOPE (&claims_lock);
  for (const struct claim *c = claims; c; c = c->next)
    if (c->owner == owner)
      return true;
  return false;
}
