/* qcow2ext: the store of the image file.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An image is read through the layers below us, whatever they are.  But these
 * cannot grow it, so writing wants our own descriptor of the file; and two
 * ways to one file are safe only if nothing between us and the file changes
 * or keeps what passes (cow, cache, luks, offset...).
 *
 *   below --first change, path proven clear--> own
 *         --not proven--> below, which cannot grow; a pair is refused
 *
 * The proof, in space that nothing refers to (at the end of a file, in a free
 * cluster of a device): what is
 * written below is seen in the file, and what is then written to the file in
 * the same place is seen below, each time through a fresh context.  One way
 * alone would miss a cache that writes through.
 */

#include "build-config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "config.h"
#include "base/mutant.h"
#include "base/report.h"
#include "store-file.h"
#include "store-image.h"
#include "store-next.h"

/* How much must look the same below and in the file for it to be that file;
 * and how much is written for the proof.
 */
#define PROBE 65536
#define PROOF 4096

/* What a proof fails with that shows that the path is not clear; anything
 * else is an error of its own.
 */
#define NOT_CLEAR EILSEQ

struct store_image {
  struct store store;
  _Atomic (struct store *) current; /* below or own */
  struct store *below;
  struct store *own;            /* NULL: not a local file */
  nbdkit_backend *backend;
  bool serialize;
  bool pair;                    /* the image has an external data file */
};

static struct store *
current (struct store *store)
{
  return atomic_load_explicit (&((struct store_image *) store)->current,
                               memory_order_acquire);
}

static int
image_store_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  return store_pread (current (s), buf, count, offset);
}

static int
image_store_get_size (struct store *s, uint64_t *size)
{
  return store_get_size (current (s), size);
}

static int
image_store_extent (struct store *s, uint64_t offset, uint64_t *end,
                    unsigned *type)
{
  return store_extent (current (s), offset, end, type);
}

static int
image_store_cache (struct store *s, uint64_t count, uint64_t offset)
{
  return store_cache (current (s), count, offset);
}

static int
image_store_pwrite (struct store *s, const void *buf, size_t count,
                    uint64_t offset)
{
  return store_pwrite (current (s), buf, count, offset);
}

static int
image_store_zero (struct store *s, uint64_t count, uint64_t offset,
                  unsigned flags)
{
  return store_zero (current (s), count, offset, flags);
}

static int
image_store_discard (struct store *s, uint64_t count, uint64_t offset)
{
  return store_discard (current (s), count, offset);
}

static int
image_store_flush (struct store *s)
{
  return store_flush (current (s));
}

static int
image_store_resize (struct store *s, uint64_t size)
{
  return store_resize (current (s), size);
}

static void
image_store_close (struct store *store)
{
  struct store_image *s = (struct store_image *) store;

  store_close (s->below);
  store_close (s->own);
  free (s->store.name);
  free (s);
}

static const struct store_ops image_store_ops = {
  .pread = image_store_pread,
  .get_size = image_store_get_size,
  .extent = image_store_extent,
  .cache = image_store_cache,
  .pwrite = image_store_pwrite,
  .zero = image_store_zero,
  .discard = image_store_discard,
  .flush = image_store_flush,
  .resize = image_store_resize,
  .close = image_store_close,
};

/* Returns 1, 0 or -errno: what cannot be read is not taken for something else,
 * or the image could not grow and nobody would know why.
 */
static int
same_content (struct store *a, struct store *b)
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

struct store *
store_image_open (nbdkit_backend *backend, const char *name, int readonly,
                  bool serialize, int fd)
{
  struct store_image *s = calloc (1, sizeof *s);

  if (s)
    s->store.name = strdup (name);
  if (fd != -1 && s)
    s->own = store_file_new (fd, name);
  if (s == NULL || s->store.name == NULL || (fd != -1 && s->own == NULL)) {
    nbdkit_error ("%s: %m", name);
    goto error;
  }
  s->store.ops = &image_store_ops;
  s->backend = backend;
  s->serialize = serialize;
  s->below = store_next_open (backend, name, readonly, serialize);
  if (s->below == NULL)
    goto error;
  if (s->own) {
    const int r = same_content (s->below, s->own);

    if (r < 0) {
      nbdkit_error ("%s: the file cannot be read: %s", name, strerror (-r));
      goto error;
    }
    if (r == 0) {
      store_close (s->own);
      s->own = NULL;
    }
  }
  s->store.readonly = s->below->readonly
    || (s->own && store_file_is_readonly_device (s->own));
  s->store.fixed_size = s->own && s->own->fixed_size;
  atomic_init (&s->current, s->below);
  return &s->store;

 error:
  if (s) {
    store_close (s->below);
    store_close (s->own);
    free (s->store.name);
  }
  free (s);
  return NULL;
}

bool
store_image_is_local (const struct store *store)
{
  return ((const struct store_image *) store)->own != NULL;
}

const char *
store_image_refuse (void *opaque, bool has_data_file)
{
  struct store_image *s = opaque;

  s->pair = has_data_file;
  if (s->pair && (s->own == NULL || s->own->readonly)
      && !config.trust_below)
    return "it has an external data file, and is not a local file that we "
      "can open for writing ourselves; put filters that change what is in "
      "it before --filter=qcow2ext, or give qcow2ext-trust-below=true";
  return NULL;
}

/* Writes pattern a through the layers below, looks for it in the file, and
 * then the other way round.
 */
static int
prove_both_ways (struct store_image *s, uint64_t offset, size_t n,
                 bool at_end)
{
  uint8_t pattern[2 * PROOF], seen[PROOF];
  struct store *below;
  uint64_t size;
  int r;

  if (getrandom (pattern, sizeof pattern, 0) != sizeof pattern)
    return -EIO;

  below = store_next_open (s->backend, s->store.name, 0, s->serialize);
  if (below == NULL)
    return -EIO;
  r = store_get_size (below, &size);
  if (r == 0 && at_end && size != offset + n)
    r = -NOT_CLEAR;
  if (r == 0)
    r = store_pwrite (below, pattern, n, offset);
  if (r == 0)
    r = store_flush (below);
  store_close (below);
  if (r == 0)
    r = store_pread (s->own, seen, n, offset);
  if (r < 0 || memcmp (seen, pattern, n) != 0)
    return r < 0 ? r : -NOT_CLEAR;
  if (MUTANT (one_way_proof))
    return 0;

  r = store_pwrite (s->own, pattern + PROOF, n, offset);
  if (r < 0)
    return r;
  below = store_next_open (s->backend, s->store.name, 0, s->serialize);
  if (below == NULL)
    return -EIO;
  r = store_pread (below, seen, n, offset);
  store_close (below);
  if (r == 0 && memcmp (seen, pattern + PROOF, n) != 0)
    r = -NOT_CLEAR;
  return r;
}

/* On a device there is no end to write behind: a free cluster has to do, and
 * is put back as it was.
 */
static int
prove_in_place (struct store_image *s, uint64_t offset, uint64_t length)
{
  uint8_t before[PROOF];
  const size_t n = length < PROOF ? length : PROOF;
  int r, r2;

  if ((r = store_pread (s->own, before, n, offset)) < 0)
    return r;
  r = prove_both_ways (s, offset, n, false);
  r2 = store_pwrite (s->own, before, n, offset);
  return r < 0 ? r : r2;
}

static int
prove (struct store_image *s, uint64_t offset, uint64_t length, bool grow)
{
  uint64_t size;
  int r;

  if (s->own == NULL || s->own->readonly || length == 0)
    return -NOT_CLEAR;
  if (!grow)
    return prove_in_place (s, offset, length);
  if ((r = store_get_size (s->own, &size)) < 0
      || (r = store_resize (s->own, offset + PROOF)) < 0)
    return r;
  r = prove_both_ways (s, offset, PROOF, true);
  if (store_resize (s->own, size) < 0 && r == 0)
    r = -EIO;
  /* A filter may keep one size for all contexts (cache does), and write up to
   * it through ours: let it see the old one again.
   */
  if (r < 0)
    store_close (store_next_open (s->backend, s->store.name, 0,
                                  s->serialize));
  return r;
}

int
store_image_prove (void *opaque, uint64_t offset, uint64_t length, bool grow,
                   bool *can_grow)
{
  struct store_image *s = opaque;

  int r = prove (s, offset, length, grow);

  *can_grow = false;
  if (r == 0) {
    atomic_store_explicit (&s->current, s->own, memory_order_release);
    *can_grow = grow;
    report_debug ("%s: the path to the file is clear", s->store.name);
    return 0;
  }
  if (r != -NOT_CLEAR) {
    report_error ("%s: whether the path to the file is clear could not be "
                  "found out: %s", s->store.name, strerror (-r));
    return r;
  }
  if (s->pair && !config.trust_below) {
    report_error ("%s: the image has an external data file and cannot be "
                  "written to: a filter between qcow2ext and the file (such "
                  "as cow, cache or offset) keeps or changes what is "
                  "written; put it before --filter=qcow2ext, or give "
                  "qcow2ext-trust-below=true", s->store.name);
    return -EROFS;
  }
  report_debug ("%s: the image is written to through the layers below and "
                "cannot grow", s->store.name);
  return 0;
}
