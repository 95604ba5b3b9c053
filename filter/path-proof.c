/* qcow2ext: do the layers below lead straight to the file?
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The proof, in space that nothing refers to (at the end of a file, in a free
 * cluster of a device): what is written below is seen in the file, and what is
 * then written to the file in the same place is seen below, each time through
 * a fresh context.  One way alone would miss a cache that writes through.
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "path-proof.h"
#include "store-below.h"

/* How much must look the same below and in the file for it to be that file;
 * and how much is written for the proof.
 */
#define PROBE 65536
#define PROOF 4096

/* What cannot be read is not taken for something else, or the image could not
 * grow and nobody would know why.
 */
int
path_looks_clear (struct store *a, struct store *b)
{
  CLEANUP_FREE uint8_t *in_a = malloc (PROBE);
  CLEANUP_FREE uint8_t *in_b = malloc (PROBE);
  uint64_t size_a, size_b;
  int r;

  if (in_a == NULL || in_b == NULL)
    return -ENOMEM;
  if ((r = store_get_size (a, &size_a)) < 0
      || (r = store_get_size (b, &size_b)) < 0)
    return r;
  if (size_a != size_b)
    return 0;
  if ((r = store_pread (a, in_a, PROBE, 0)) < 0
      || (r = store_pread (b, in_b, PROBE, 0)) < 0)
    return r;
  return memcmp (in_a, in_b, PROBE) == 0;
}

static struct store *
open_below (const struct path *p)
{
  return store_below_open (p->backend, p->export, p->own->name, 0,
                           p->serialize);
}

/* Writes pattern a through the layers below, looks for it in the file, and
 * then the other way round.  The layers below open the file by its name, which
 * may lead elsewhere by now: what is open there must first show a pattern that
 * was written to the file.
 */
static int
prove_both_ways (const struct path *p, uint64_t offset, size_t n,
                 bool at_end)
{
  uint8_t pattern[3 * PROOF], seen[PROOF];
  struct store *below;
  uint64_t size;
  int r;

  if (getrandom (pattern, sizeof pattern, 0) != sizeof pattern)
    return -EIO;

  below = open_below (p);
  if (below == NULL)
    return -EIO;
  r = store_get_size (below, &size);
  if (r == 0 && at_end && size != offset + n)
    r = -PATH_NOT_CLEAR;
  if (r == 0)
    r = store_pwrite (p->own, pattern + 2 * PROOF, n, offset);
  if (r == 0)
    r = store_pread (below, seen, n, offset);
  if (r == 0 && memcmp (seen, pattern + 2 * PROOF, n) != 0)
    r = -PATH_NOT_CLEAR;
  if (r == 0)
    r = store_pwrite (below, pattern, n, offset);
  if (r == 0)
    r = store_flush (below);
  store_close (below);
  if (r == 0)
    r = store_pread (p->own, seen, n, offset);
  if (r < 0 || memcmp (seen, pattern, n) != 0)
    return r < 0 ? r : -PATH_NOT_CLEAR;

  r = store_pwrite (p->own, pattern + PROOF, n, offset);
  if (r < 0)
    return r;
  below = open_below (p);
  if (below == NULL)
    return -EIO;
  r = store_pread (below, seen, n, offset);
  store_close (below);
  if (r == 0 && memcmp (seen, pattern + PROOF, n) != 0)
    r = -PATH_NOT_CLEAR;
  return r;
}

/* On a device there is no end to write behind: a free cluster has to do, and
 * is put back as it was.
 */
static int
prove_in_place (const struct path *p, uint64_t offset, uint64_t length)
{
  uint8_t before[PROOF];
  const size_t n = length < PROOF ? length : PROOF;
  int r, r2;

  if ((r = store_pread (p->own, before, n, offset)) < 0)
    return r;
  r = prove_both_ways (p, offset, n, false);
  r2 = store_pwrite (p->own, before, n, offset);
  return r < 0 ? r : r2;
}

/* Sets the size of the file from one that it must have.  What somebody else
 * has added meanwhile would be cut off.
 */
static int
change_size (const struct path *p, uint64_t from, uint64_t to)
{
  uint64_t size;
  int r;

  if ((r = store_get_size (p->own, &size)) < 0)
    return r;
  return size == from ? store_resize (p->own, to) : -PATH_CHANGED;
}

int
path_prove (struct path *p, uint64_t offset, uint64_t length,
            bool grow)
{
  int r, r2;

  if (p->own == NULL || p->own->readonly || length == 0)
    return -PATH_NOT_CLEAR;
  if (!grow)
    return prove_in_place (p, offset, length);
  r = change_size (p, p->left ? p->left : p->size, offset + PROOF);
  if (r < 0)
    return r;
  p->left = offset + PROOF;
  r = prove_both_ways (p, offset, PROOF, true);
  r2 = change_size (p, p->left, p->size);
  if (r2 == 0)
    p->left = 0;
  if (r2 == -PATH_CHANGED || (r2 < 0 && r == 0))
    r = r2;
  /* A filter may keep one size for all contexts (cache does), and write up to
   * it through ours: let it see the old one again.
   */
  if (r < 0)
    store_close (open_below (p));
  return r;
}
