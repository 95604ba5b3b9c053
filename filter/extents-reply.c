/* qcow2ext: extents for a client.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>

#include "extents-reply.h"

/* A reply holds at most this many; the client asks again. */
#define MAX_EXTENTS_REPLY 65536

struct collector {
  struct nbdkit_extents *extents;
  bool only_first;
  unsigned added;
  uint64_t offset, length;      /* not yet added, if length > 0 */
  unsigned type;
};

/* Returns 0, 1 if that is enough, or -errno. */
static int
add_pending (struct collector *c)
{
  if (c->length
      && nbdkit_add_extent (c->extents, c->offset, c->length, c->type) == -1)
    return errno ? -errno : -EIO;
  return ++c->added >= MAX_EXTENTS_REPLY || c->only_first;
}

static int
collect (void *opaque, uint64_t offset, uint64_t length, unsigned type)
{
  struct collector *c = opaque;
  int r = 0;

  if (length == 0)
    return 0;
  if (c->length && c->type == type) {
    c->length += length;
    return 0;
  }
  if (c->length)
    r = add_pending (c);
  c->offset = offset;
  c->length = r == 0 ? length : 0;
  c->type = type;
  return r;
}

int
extents_reply (struct image *image, uint32_t count, uint64_t offset,
               bool only_first, struct nbdkit_extents *extents)
{
  struct collector c = { .extents = extents, .only_first = only_first };
  int r = image_extents (image, count, offset, collect, &c);

  if (r == 0)
    r = add_pending (&c);
  return r < 0 ? r : 0;
}
