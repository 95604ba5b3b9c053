/* qcow2ext: an nbdkit filter that serves the disk in a qcow2 image.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Only nbdkit's callbacks are here: they translate, call the engine and
 * translate back.
 */

#include "build-config.h"

#include <errno.h>

#include <nbdkit-filter.h>

#include "base/crew.h"
#include "base/report.h"
#include "config.h"
#include "data/decoded-cache.h"
#include "directory.h"
#include "dump.h"
#include "encryption.h"
#include "exports.h"
#include "extents-reply.h"
#include "failures.h"
#include "filters-above.h"
#include "handles.h"
#include "idle.h"
#include "image/image.h"
#include "images.h"
#include "size-signal.h"

/* nbdkit fixes the callbacks' parameters; few need them all. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* nbdkit -D qcow2ext.verbose=1 */
NBDKIT_DLL_PUBLIC int qcow2ext_debug_verbose = 0;

/* Threads that wait for what is far away: more gain little, for even a slow
 * answer comes in some milliseconds.
 */
#define WAITERS 15

static unsigned loaded;

static void
sink (enum report_level level, const char *message)
{
  switch (level) {
  case REPORT_DEBUG:
    if (qcow2ext_debug_verbose)
      nbdkit_debug ("qcow2ext: %s", message);
    break;
  case REPORT_WARNING:
    nbdkit_error ("warning: %s", message);
    break;
  case REPORT_ERROR:
    nbdkit_error ("%s", message);
    break;
  }
}

static void
qcow2ext_load (void)
{
  loaded++;
  report_set_sink (sink);
  size_signal_catch ();
}

static void
qcow2ext_unload (void)
{
  if (--loaded > 0)
    return;
  size_signal_undo ();
  handles_free ();
  images_free ();
  failures_free ();
  directory_close ();
  crew_free (config.crew);
  crew_free (config.waiters);
  decoded_cache_unref (config.decoded);
  config_free ();
}

static int
qcow2ext_config (nbdkit_next_config *next, nbdkit_backend *nxdata,
                 const char *key, const char *value)
{
  const int r = config_parse (key, value);

  if (r == 0)
    return next (nxdata, key, value);
  return r == 1 ? 0 : -1;
}

static int
qcow2ext_config_complete (nbdkit_next_config_complete *next,
                          nbdkit_backend *nxdata)
{
  if (loaded > 1) {
    nbdkit_error ("the filter can be used only once in a server");
    return -1;
  }
  if (config_check () == -1)
    return -1;
  /* Without them the same is done, only slower. */
  config.crew = crew_new (0);
  config.waiters = crew_new (WAITERS);
  config.decoded = decoded_cache_new (config.decoded_cache_size);
  if (config.decoded == NULL) {
    nbdkit_error ("malloc: %m");
    return -1;
  }
  return next (nxdata);
}

/* Writing through one export would change another one. */
static int
check_filters_above (void)
{
  const char *name = config.directory || config.all_exports
    ? filters_above_mix () : NULL;

  if (name == NULL)
    return 0;
  nbdkit_error ("%s: --filter=%s before --filter=qcow2ext has one overlay or "
                "cache for all exports, and would mix them: leave it out, or "
                "serve one image with one export",
                config.directory ? "dir=" : "qcow2ext-exports=all", name);
  return -1;
}

static int
qcow2ext_get_ready (int thread_model)
{
  if (check_filters_above () == -1)
    return -1;
  config.serialize = thread_model < NBDKIT_THREAD_MODEL_PARALLEL;
  if (config.directory)
    return directory_open ();
  images_start ();
  return served_image_validate (images_the_one ());
}

/* To fail here would be worse than to have no such thread: the server has
 * already said that it runs.
 */
static int
qcow2ext_after_fork (nbdkit_backend *backend)
{
  encryption_after_fork ();
  if (config.directory)
    directory_raise_limit ();
  idle_start ();
  return 0;
}

/* The server quits.  Connections that have not ended do not any more. */
static void
qcow2ext_cleanup (nbdkit_backend *backend)
{
  idle_stop ();
  images_each (sessions_end);
}

static void *
qcow2ext_open (nbdkit_next_open *next, nbdkit_context *context, int readonly,
               const char *exportname, int is_tls)
{
  struct served_image *served;
  struct export export;

  if (exports_parse (exportname, &served, &export) == -1)
    return NULL;
  return handle_open (served, nbdkit_context_get_backend (context), readonly,
                      &export);
}

static int
qcow2ext_finalize (nbdkit_next *next, void *handle)
{
  handle_detach (handle);
  return 0;
}

static void
qcow2ext_close (void *handle)
{
  handle_close (handle);
}

static int
qcow2ext_list_exports (nbdkit_next_list_exports *next, nbdkit_backend *nxdata,
                       int readonly, int is_tls,
                       struct nbdkit_exports *exports)
{
  return exports_list (nxdata, exports);
}

static const char *
qcow2ext_default_export (nbdkit_next_default_export *next,
                         nbdkit_backend *nxdata, int readonly, int is_tls)
{
  return exports_default ();
}

static struct image *
image_of (void *handle)
{
  return ((struct handle *) handle)->image;
}

static int64_t
qcow2ext_get_size (nbdkit_next *next, void *handle)
{
  return image_size (image_of (handle));
}

static const char *
qcow2ext_export_description (nbdkit_next *next, void *handle)
{
  return ((struct handle *) handle)->session->description;
}

static int
qcow2ext_block_size (nbdkit_next *next, void *handle, uint32_t *minimum,
                     uint32_t *preferred, uint32_t *maximum)
{
  *minimum = 1;
  *preferred = image_preferred_size (image_of (handle));
  if (*preferred < 4096)
    *preferred = 4096;
  *maximum = UINT32_MAX;
  return 0;
}

/* Every can_* is answered here: one that is left out would be asked of the
 * layer below, whose answers are about the image file.
 */
static int
yes (nbdkit_next *next, void *handle)
{
  return 1;
}

static int
no (nbdkit_next *next, void *handle)
{
  return 0;
}

static int
qcow2ext_can_write (nbdkit_next *next, void *handle)
{
  const struct handle *h = handle;

  return !h->readonly && image_is_writable (h->image);
}

static int
qcow2ext_can_zero (nbdkit_next *next, void *handle)
{
  return NBDKIT_ZERO_NATIVE;
}

static int
qcow2ext_can_fua (nbdkit_next *next, void *handle)
{
  return NBDKIT_FUA_NATIVE;
}

static int
qcow2ext_can_cache (nbdkit_next *next, void *handle)
{
  return NBDKIT_CACHE_NATIVE;
}

/* Turns what the engine returned into what nbdkit wants. */
static int
done (int r, int *err)
{
  if (r >= 0)
    return 0;
  *err = -r;
  return -1;
}

static int
qcow2ext_pread (nbdkit_next *next, void *handle, void *buf, uint32_t count,
                uint64_t offset, uint32_t flags, int *err)
{
  const struct handle *h = handle;
  int r = h->session->served->refused ? -EIO
          : image_read (h->image, buf, count, offset);

  /* Asked afterwards, it covers what was read meanwhile. */
  if (h->is_bitmap && !session_is_current (h->session, true))
    r = -EIO;
  return done (r, err);
}

/* What a change with FUA has to add. */
static int
done_change (struct image *image, int r, uint32_t flags, int *err)
{
  if (r == 0 && (flags & NBDKIT_FLAG_FUA))
    r = image_flush (image);
  return done (r, err);
}

static int
qcow2ext_pwrite (nbdkit_next *next, void *handle, const void *buf,
                 uint32_t count, uint64_t offset, uint32_t flags, int *err)
{
  struct image *image = image_of (handle);

  return done_change (image, image_write (image, buf, count, offset), flags,
                      err);
}

static int
qcow2ext_zero (nbdkit_next *next, void *handle, uint32_t count,
               uint64_t offset, uint32_t flags, int *err)
{
  struct image *image = image_of (handle);
  const unsigned how =
    (flags & NBDKIT_FLAG_MAY_TRIM ? IMAGE_ZERO_UNMAP : 0)
    | (flags & NBDKIT_FLAG_FAST_ZERO ? IMAGE_ZERO_FAST : 0);

  return done_change (image, image_zero (image, count, offset, how), flags,
                      err);
}

static int
qcow2ext_trim (nbdkit_next *next, void *handle, uint32_t count,
               uint64_t offset, uint32_t flags, int *err)
{
  struct image *image = image_of (handle);

  return done_change (image, image_trim (image, count, offset), flags, err);
}

static int
qcow2ext_flush (nbdkit_next *next, void *handle, uint32_t flags, int *err)
{
  const struct handle *h = handle;

  /* Whoever asks may be a client of an earlier session, which has come back,
   * and what it wrote is lost.
   */
  return done (h->session->open.has_failed ? -EIO
               : image_flush (image_of (handle)), err);
}

static int
qcow2ext_extents (nbdkit_next *next, void *handle, uint32_t count,
                  uint64_t offset, uint32_t flags,
                  struct nbdkit_extents *extents, int *err)
{
  const struct handle *h = handle;
  int r = -EIO;

  if (h->session->served->refused)
    return done (r, err);
  if (!h->is_bitmap || session_is_current (h->session, false))
    r = extents_reply (h->image, count, offset, flags & NBDKIT_FLAG_REQ_ONE,
                       extents);
  if (r == 0 && h->is_bitmap && !session_is_current (h->session, false))
    r = -EIO;
  return done (r, err);
}

/* Filters above us (readahead, scan) ask for this in threads of their own, which
 * may go on during and after .finalize.
 */
static int
qcow2ext_cache (nbdkit_next *next, void *handle, uint32_t count,
                uint64_t offset, uint32_t flags, int *err)
{
  struct handle *h = handle;

  pthread_rwlock_rdlock (&h->leaving);
  if (h->session)
    image_cache (h->session->open.image, count, offset);
  pthread_rwlock_unlock (&h->leaving);
  return 0;
}

#if NBDKIT_VERSION_MAJOR > 1 || NBDKIT_VERSION_MINOR >= 36
static void
qcow2ext_dump_plugin (void)
{
  dump_build ();
}
#define HAVE_DUMP_PLUGIN 1
#endif

static struct nbdkit_filter filter = {
  .name = "qcow2ext",
  .longname = "nbdkit qcow2ext filter " PACKAGE_VERSION,
  .description = "Serves the disk in a qcow2 image, with external data file, "
                 "backing files\nand snapshots.",
  .load = qcow2ext_load,
  .unload = qcow2ext_unload,
  .config = qcow2ext_config,
  .config_complete = qcow2ext_config_complete,
  .config_help = CONFIG_HELP,
#ifdef HAVE_DUMP_PLUGIN
  .dump_plugin = qcow2ext_dump_plugin,
#endif
  .get_ready = qcow2ext_get_ready,
  .after_fork = qcow2ext_after_fork,
  .cleanup = qcow2ext_cleanup,
  .list_exports = qcow2ext_list_exports,
  .default_export = qcow2ext_default_export,
  .open = qcow2ext_open,
  .finalize = qcow2ext_finalize,
  .close = qcow2ext_close,
  .get_size = qcow2ext_get_size,
  .export_description = qcow2ext_export_description,
  .block_size = qcow2ext_block_size,
  .can_write = qcow2ext_can_write,
  .can_flush = yes,
  .is_rotational = no,
  .can_trim = yes,
  .can_zero = qcow2ext_can_zero,
  .can_fast_zero = yes,
  .can_extents = yes,
  .can_fua = qcow2ext_can_fua,
  .can_multi_conn = yes,
  .can_cache = qcow2ext_can_cache,
  .pread = qcow2ext_pread,
  .pwrite = qcow2ext_pwrite,
  .zero = qcow2ext_zero,
  .trim = qcow2ext_trim,
  .flush = qcow2ext_flush,
  .extents = qcow2ext_extents,
  .cache = qcow2ext_cache,
};

NBDKIT_REGISTER_FILTER (filter)
