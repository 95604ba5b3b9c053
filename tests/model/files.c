/* qcow2ext: the files of an image in memory, opened by the engine.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>

#include "files.h"
#include "image-maker.h"
#include "toy-cipher.h"
#include "data/decoded-cache.h"

static int
open_data (void *opaque, unsigned depth, const struct store *of,
           const char *name, struct store **store)
{
  struct files *f = opaque;

  (void) depth, (void) of, (void) name;
  memory_in_engine = false;
  *store = store_memory_new (&f->file[MEMORY_DATA], f->log, MEMORY_DATA,
                             f->no_discard);
  (*store)->fixed_size = f->data_device;
  memory_in_engine = true;
  return 0;
}

static int
open_backing (void *opaque, unsigned depth, const struct store *of,
              const char *name, const char *format, struct store **store,
              enum image_format *as)
{
  struct files *f = opaque;

  (void) depth, (void) of, (void) format;
  memory_in_engine = false;
  *store = name ? store_memory_new (&f->file[MEMORY_BACKING], f->log,
                                    MEMORY_BACKING, false) : NULL;
  memory_in_engine = true;
  *as = IMAGE_RAW;
  return 0;
}

static const char *
refuse (void *opaque, bool has_data_file)
{
  (void) opaque, (void) has_data_file;
  return NULL;
}

/* What the filter does: it leaves nothing behind, but nothing says when that
 * is durable.
 */
static int
prove (void *opaque, uint64_t offset, uint64_t length, bool grow,
       bool *can_grow)
{
  struct files *f = opaque;
  uint8_t pattern[MEMORY_SECTOR], before[MEMORY_SECTOR];
  uint64_t size;
  int r;

  make_pattern (pattern, PATTERN_OLD, offset / MEMORY_SECTOR);
  *can_grow = false;
  if (!grow && length == 0)
    return 0;
  if (!grow) {
    if ((r = store_pread (f->store, before, sizeof before, offset)) < 0
        || (r = store_pwrite (f->store, pattern, sizeof pattern, offset)) < 0)
      return r;
    return store_pwrite (f->store, before, sizeof before, offset);
  }
  if ((r = store_get_size (f->store, &size)) < 0
      || (r = store_resize (f->store, offset + length)) < 0)
    return r;
  r = store_pwrite (f->store, pattern, sizeof pattern, offset);
  if (store_resize (f->store, size) < 0)
    r = -EIO;
  *can_grow = r == 0;
  return r;
}

/* The environment lives as long as the image, so it is static; what differs
 * is in the opaque pointer.
 */
struct opened {
  struct image_env env;
  struct image_write_env write_env;
};

int
files_open (struct files *files, bool writable, size_t l2_cache,
            struct image **image)
{
  /* One image is open at a time in a thread, so these can be reused. */
  static _Thread_local struct opened o;
  struct image_options options;
  int r;

  o.env = (struct image_env) {
    .open_data = open_data, .open_backing = open_backing,
    .open_encrypted = toy_open_encrypted, .opaque = files
  };
  o.write_env = (struct image_write_env) {
    .refuse = refuse, .prove = prove, .opaque = files
  };
  options = (struct image_options) {
    .env = &o.env,
    .write_env = writable ? &o.write_env : NULL,
    .l2_cache_size = l2_cache ? l2_cache : 1 << 20,
    .decoded = decoded_cache_new (1 << 20),
    .write = files->write,
  };
  files->store = store_memory_new (&files->file[MEMORY_IMAGE], files->log,
                                   MEMORY_IMAGE, files->no_discard);
  files->store->fixed_size = files->device;
  memory_in_engine = true;
  r = image_open (files->store, &options, image);
  memory_in_engine = false;
  decoded_cache_unref (options.decoded);
  return r;
}
