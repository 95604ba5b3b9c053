/* qcow2ext: the store of the image file, which changes over to our own
 * descriptor of it.
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
 * With direct I/O it is our own descriptor from the start.  So it is with an
 * image of a directory, since contexts below cannot be shared then: they are
 * opened to compare and for the proof, one after another, on the thread of the
 * connection that asks.  Not proven, such an image is refused.
 *
 * The proof is in path-proof.c.
 */

#include "build-config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/report.h"
#include "config.h"
#include "directory.h"
#include "path-proof.h"
#include "store-ahead.h"
#include "store-below.h"
#include "store-direct.h"
#include "store-file.h"
#include "store-open.h"
#include "store-switch.h"

/* So many times an export below may look different from the file. */
#define LOOKS 5

struct store_switch {
  struct store store;
  _Atomic (struct store *) current; /* below or own */
  struct store *below;          /* NULL: it is an export's */
  struct export_below export;   /* its name is NULL: there is none */
  struct store *own;            /* NULL: not a local file */
  struct path path;             /* to below, and own */
  bool pair;                    /* the image has an external data file */
};

static struct store *
current (struct store *store)
{
  return atomic_load_explicit (&((struct store_switch *) store)->current,
                               memory_order_acquire);
}

static int
switch_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  return store_pread (current (s), buf, count, offset);
}

static int
switch_get_size (struct store *s, uint64_t *size)
{
  return store_get_size (current (s), size);
}

/* A device is enlarged for its user.  A file becomes larger by what somebody
 * else writes to it.
 */
static int
switch_refresh_size (struct store *store, uint64_t *size)
{
  const struct store *own = ((struct store_switch *) store)->own;

  if (own && !own->fixed_size)
    return store_get_size (current (store), size);
  return store_refresh_size (current (store), size);
}

static int
switch_extent (struct store *s, uint64_t offset, uint64_t *end,
               unsigned *type)
{
  return store_extent (current (s), offset, end, type);
}

static int
switch_cache (struct store *s, uint64_t count, uint64_t offset)
{
  return store_cache (current (s), count, offset);
}

static int
switch_pwrite (struct store *s, const void *buf, size_t count,
                    uint64_t offset)
{
  return store_pwrite (current (s), buf, count, offset);
}

static int
switch_zero (struct store *s, uint64_t count, uint64_t offset,
                  unsigned flags)
{
  return store_zero (current (s), count, offset, flags);
}

static int
switch_discard (struct store *s, uint64_t count, uint64_t offset)
{
  return store_discard (current (s), count, offset);
}

static int
switch_flush (struct store *s)
{
  return store_flush (current (s));
}

static int
switch_resize (struct store *s, uint64_t size)
{
  return store_resize (current (s), size);
}

static void
free_switch (struct store_switch *s)
{
  store_close (s->below);
  store_close (s->own);
  free (s->store.name);
  free (s);
}

static void
switch_close (struct store *store)
{
  free_switch ((struct store_switch *) store);
}

static const struct store_ops switch_ops = {
  .pread = switch_pread,
  .get_size = switch_get_size,
  .refresh_size = switch_refresh_size,
  .extent = switch_extent,
  .cache = switch_cache,
  .pwrite = switch_pwrite,
  .zero = switch_zero,
  .discard = switch_discard,
  .flush = switch_flush,
  .resize = switch_resize,
  .close = switch_close,
};

/* Without a file of our own it may be anywhere. */
static int
be_far (struct store_switch *s)
{
  s->store.far = true;
  s->below = store_ahead_new (s->below, config.read_ahead_size,
                              s->path.serialize);
  if (s->below == NULL)
    nbdkit_error ("%s: %m", s->store.name);
  return s->below ? 0 : -1;
}

/* Opens what is below, to stay open, and sees whether it is our own file.  A
 * client of another export of the image may be making that larger: then its two
 * sizes are of two moments.
 */
static int
open_below (struct store_switch *s, int readonly)
{
  const struct path *p = &s->path;
  uint64_t before = 0, after = 0;
  unsigned looks = 0;
  int r;

  do {
    store_close (s->below);
    if (s->own)
      store_get_size (s->own, &before);
    s->below = store_below_open (p->backend, NULL, s->store.name, readonly,
                                 p->serialize);
    if (s->below == NULL)
      return -1;
    s->store.readonly = s->below->readonly;
    store_get_size (s->below, &s->path.size); /* it keeps what it was */
    if (s->own == NULL)
      return be_far (s);
    r = path_looks_clear (s->below, s->own);
    store_get_size (s->own, &after);
  } while (r == 0 && before != after && ++looks < LOOKS);
  if (r < 0) {
    nbdkit_error ("%s: the file cannot be read: %s", s->store.name,
                  strerror (-r));
    return -1;
  }
  if (r == 0) {
    store_close (s->own);
    s->own = NULL;
    return be_far (s);
  }
  return 0;
}

/* Sees whether an export below is our own file.  A client of another export
 * of the image may be changing it.
 */
static int
look_below (struct store_switch *s, int readonly)
{
  const struct path *p = &s->path;
  int r = 0;

  for (unsigned i = 0; i < LOOKS && r == 0; i++) {
    struct store *below = store_below_open (p->backend, p->export,
                                            s->store.name, readonly,
                                            p->serialize);

    if (below == NULL)
      return -1;
    s->store.readonly = below->readonly;
    r = path_looks_clear (below, s->own);
    store_close (below);
  }
  if (r == 1)
    r = store_get_size (s->own, &s->path.size);
  else if (r == 0) {
    nbdkit_error ("%s: dir=: what is below qcow2ext is not this file: a "
                  "filter (such as offset, luks or xz) changes what is in "
                  "it, or the directory has been replaced", s->store.name);
    return -1;
  }
  if (r < 0)
    nbdkit_error ("%s: the file cannot be read: %s", s->store.name,
                  strerror (-r));
  return r < 0 ? -1 : 0;
}

struct store *
store_switch_open (nbdkit_backend *backend, const struct export_below *export,
                   const char *name, int readonly, bool serialize, int fd)
{
  struct store_switch *s = calloc (1, sizeof *s);

  if (s == NULL || (s->store.name = strdup (name)) == NULL) {
    nbdkit_error ("%s: %m", name);
    if (fd != -1)
      close (fd);
    free (s);
    return NULL;
  }
  s->store.ops = &switch_ops;
  if (export)
    s->export = *export;
  s->path = (struct path) {
    .backend = backend, .export = s->export.name, .serialize = serialize,
  };
  if ((fd != -1 && store_open_own (fd, name, &s->own) < 0)
      || (export ? look_below (s, readonly) : open_below (s, readonly)) < 0)
    goto error;
  if (config.direct && s->own == NULL) {
    nbdkit_error ("%s: qcow2ext-direct=true: what is below qcow2ext is not "
                  "this file: a filter (such as offset, luks or xz) changes "
                  "what is in it", name);
    goto error;
  }
  s->path.own = s->own;
  s->store.readonly = s->store.readonly
    || (s->own
        && store_file_is_readonly_device (store_direct_file (s->own)));
  s->store.fixed_size = s->own && s->own->fixed_size;
  atomic_init (&s->current, config.direct || export ? s->own : s->below);
  return &s->store;

 error:
  free_switch (s);
  return NULL;
}

bool
store_switch_is_local (const struct store *store)
{
  return ((const struct store_switch *) store)->own != NULL;
}

const char *
store_switch_refuse (void *opaque, bool has_data_file)
{
  struct store_switch *s = opaque;

  s->pair = has_data_file;
  if (s->pair && (s->own == NULL || s->own->readonly)
      && !config.trust_below)
    return "it has an external data file, and is not a local file that we "
      "can open for writing ourselves; put filters that change what is in "
      "it before --filter=qcow2ext, or give qcow2ext-trust-below=true";
  return NULL;
}

/* Does the name of the image lead to another file by now?  With fd= the plugin
 * does not look at names.
 */
static bool
has_moved (const struct store_switch *s)
{
  const struct store *file = s->own ? store_direct_file (s->own) : NULL;
  struct file_id id;

  if (s->export.name)
    return store_file_id (file, &id) < 0
      || !directory_has (s->export.name, &id);
  return file && config.image_fd == -1
    && !store_file_is_at (file, s->store.name);
}

int
store_switch_prove (void *opaque, uint64_t offset, uint64_t length, bool grow,
                    bool *can_grow)
{
  struct store_switch *s = opaque;
  int r;

  *can_grow = false;
  /* Look first: the proof would write to what now has the name. */
  if (has_moved (s)) {
    report_error ("%s: the image has been renamed, removed or replaced since "
                  "it was opened, so it is not written to; disconnect all "
                  "clients, and the next one gets what is there now",
                  s->store.name);
    return -EROFS;
  }
  r = path_prove (&s->path, offset, length, grow);
  if (r == 0) {
    atomic_store_explicit (&s->current, s->own, memory_order_release);
    *can_grow = grow;
    report_debug ("%s: the path to the file is clear", s->store.name);
    return 0;
  }
  if (r == -PATH_CHANGED) {
    report_error ("%s: another program has written to the image since it was "
                  "opened, so it is not written to here; end that program, "
                  "and disconnect all clients", s->store.name);
    return -EROFS;
  }
  if (r != -PATH_NOT_CLEAR) {
    report_error ("%s: whether the path to the file is clear could not be "
                  "found out: %s; if a filter between qcow2ext and the file "
                  "is why, put it before --filter=qcow2ext",
                  s->store.name, strerror (-r));
    return r;
  }
  if (s->export.name) {
    atomic_store (s->export.refused, true);
    report_error ("%s: dir=: the image cannot be served: a filter between "
                  "qcow2ext and the file (such as cow or cache) keeps or "
                  "changes what is written; leave it out", s->store.name);
    return -EROFS;
  }
  if (config.direct) {
    report_error ("%s: qcow2ext-direct=true: the image cannot be written to: "
                  "a filter between qcow2ext and the file (such as cow or "
                  "cache) keeps or changes what is written; put it before "
                  "--filter=qcow2ext", s->store.name);
    return -EROFS;
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
