/* qcow2ext: what an image asks of its surroundings, and how it is opened.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_ENV_H
#define QCOW2_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/store.h"
#include "data/write-options.h"
#include "disk/format.h"

struct crew;
struct decoded_cache;

/* How the engine reaches files that an image names.  Both return 0 or
 * -errno, having reported what is wrong.  The store belongs to the engine.
 */
struct image_env {
  /* Opens the external data file of the image in store "of".  name is what
   * the image says, or NULL.  depth 0 is the image that is served.
   */
  int (*open_data) (void *opaque, unsigned depth, const struct store *of,
                    const char *name, struct store **store);

  /* Opens the backing file likewise, and says how to interpret it.  name and
   * format are what the image says; either may be NULL.  *store == NULL: the
   * image is to be served without its backing file.
   */
  int (*open_backing) (void *opaque, unsigned depth, const struct store *of,
                       const char *name, const char *format,
                       struct store **store, enum image_format *as);

  /* Opens the encryption of the image in store "of", whose LUKS header is in
   * the length bytes at offset.  *store lies in front of clusters and goes on
   * using that, which is closed after it.  If this fails, *store stays as it
   * was.
   */
  int (*open_encrypted) (void *opaque, struct store *of, uint64_t offset,
                         uint64_t length, struct store *clusters,
                         struct store **store);
  void *opaque;
};

/* What an image that is written to asks of its surroundings, all its life. */
struct image_write_env {
  /* Says why the image must not be written to; NULL: it may. */
  const char *(*refuse) (void *opaque, bool has_data_file);

  /* Called before the first change of a session: makes sure that what is
   * written to the image file from now on reaches it as it is, by writing to
   * length bytes from offset, which nothing refers to; with grow, they lie
   * past the end of the file.  Length 0: there is no such space.  Sets
   * *can_grow.  Returns 0 or -errno (reported).
   */
  int (*prove) (void *opaque, uint64_t offset, uint64_t length, bool grow,
                bool *can_grow);
  void *opaque;
};

struct image_options {
  const struct image_env *env;
  const struct image_write_env *write_env; /* NULL: open for reading only */
  const char *snapshot;         /* ID or name; NULL: the active disk */
  const char *const *bitmaps;   /* names; show as extents what is dirty in
                                   any of them */
  size_t nr_bitmaps;            /* 0: show the mapping */
  bool bitmap_chain;            /* also those of these names in lower layers */
  bool any_bitmap;              /* if it is inconsistent, that fails extents,
                                   and not image_open */
  bool check;                   /* check for consistency */
  size_t l2_cache_size;         /* bytes, for all layers together */
  struct decoded_cache *decoded; /* the image takes a reference */
  struct write_options write;
  struct crew *crew;            /* helps with compressing and decompressing;
                                   NULL: none */
  struct crew *waiters;         /* has a thread for each request to a store
                                   that is far away; NULL: none */
  bool want_data_file;          /* fail if the image does not use one */
  bool want_encryption;         /* fail if no layer is encrypted */
  bool warn;                    /* report dirty and corrupt images */
  bool warn_bitmaps;            /* report bitmaps that will not record */
};

#endif /* QCOW2_ENV_H */
