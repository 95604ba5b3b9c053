/* qcow2ext: an nbdkit filter that serves the disk in a qcow2 image.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Only nbdkit's callbacks are here: they translate, call the engine and
 * translate back.
 *
 * A session is one export that somebody has open: an image, or one of its
 * snapshots.  All connections to it share it, and it ends with the last of
 * them, so that whoever connects next reads everything anew.  nbdkit's own
 * per-connection contexts below us are not used: a session has one shared
 * context, inside its store.
 *
 * A handle is attached to its session by .open and detached by .finalize or
 * .close, whichever comes first: a client that goes during negotiation sees
 * no .finalize, a server that quits calls no .close.
 *
 * Lock: sessions_lock guards the lists of sessions and handles.  It is held
 * while an image is opened or closed, so that the two never overlap; data
 * paths do not take it.  A handle's lock, taken after it, keeps its session
 * from going while a thread of a filter above us uses it.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "base/cleanup.h"
#include "config.h"
#include "disk/format.h"
#include "image-lock.h"
#include "image/image.h"
#include "base/report.h"
#include "disk/snapshot.h"
#include "store-file.h"
#include "store-open.h"
#include "store-switch.h"

/* nbdkit fixes the callbacks' parameters; few need them all. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* nbdkit -D qcow2ext.verbose=1 */
NBDKIT_DLL_PUBLIC int qcow2ext_debug_verbose = 0;

/* An extents reply holds at most this many; the client asks again. */
#define MAX_EXTENTS_REPLY 65536

/* Limits of nbdkit and of the NBD protocol on lists of exports. */
#define MAX_EXPORTS 10000
#define NBD_MAX_STRING 4096

struct session {
  struct session *next;
  char *snapshot;               /* ID or name; NULL: the live disk */
  bool writable;                /* asked for; the image may refuse */
  unsigned handles;
  struct layer *image;
  struct image_write_env write_env; /* for as long as the image is open */
  char *description;
};

struct handle {
  struct handle *next, **prev;
  struct session *session;      /* NULL: detached */
  bool readonly;                /* the client must not write */
  pthread_rwlock_t leaving;     /* for writing: while session changes */
};

static pthread_mutex_t sessions_lock = PTHREAD_MUTEX_INITIALIZER;
static struct session *sessions;
static struct handle *handles;
static int lock_fd = -1;        /* of the image file, while in use */
static bool lock_writing;       /* it is held as a writer does */
static bool serialize;          /* the layers below are not parallel */
static bool local;              /* the image is the file at image_path */
static bool warned;             /* about the state of the image, at start */
static unsigned loaded;

static pthread_t idle;          /* see idle_thread */
static bool idle_runs;
static pthread_cond_t quit_cond = PTHREAD_COND_INITIALIZER;
static bool quitting;           /* under sessions_lock */

static void
handle_free (struct handle *h)
{
  pthread_rwlock_destroy (&h->leaving);
  free (h);
}

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
}

static void
qcow2ext_unload (void)
{
  if (--loaded > 0)
    return;
  while (handles) {
    struct handle *h = handles;

    handles = h->next;
    handle_free (h);
  }
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
  return next (nxdata);
}

/* Is this the file behind the plugin's fd=?  Its path may lead to another one
 * by now.
 */
static bool
same_as_fd (const struct stat *st)
{
  struct file_id id, expected;
  struct stat st_fd;

  if (fstat (config.image_fd, &st_fd) == -1)
    return false;
  id = file_id_of (st);
  expected = file_id_of (&st_fd);
  return file_id_equal (&id, &expected);
}

/* Opens the image file itself, if it is there and something we can open; for
 * writing, if that is wanted and allowed.  Returns -1 if not: nothing is
 * wrong with that.
 */
static int
open_local (bool writable, struct stat *st)
{
  const int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  int fd = -1;

  if (config.image_path == NULL || stat (config.image_path, st) == -1
      || (!S_ISREG (st->st_mode) && !S_ISBLK (st->st_mode)))
    return -1;
  if (writable)
    fd = open (config.image_path, O_RDWR | flags);
  if (fd == -1)
    fd = open (config.image_path, O_RDONLY | flags);
  if (fd == -1) {
    /* With file= the plugin cannot open it either, and says so. */
    if (config.image_fd != -1)
      nbdkit_error ("%s: the file of fd= cannot be opened a second time, so "
                    "it is treated as one that is not local: %m",
                    config.image_path);
    return -1;
  }
  if (fstat (fd, st) == -1
      || (config.image_fd != -1 && !same_as_fd (st))) {
    close (fd);
    return -1;
  }
  return fd;
}

/* What an image is opened for. */
struct purpose {
  const char *snapshot;         /* ID or name; NULL: the live disk */
  bool writable;
  bool lock;
  bool serve;                   /* not only to see whether it is a good one */
  const struct image_write_env *write_env;
};

/* Opens the image in store and what it refers to.  path is that of the
 * image, if it is a local file.  Takes the store.
 */
static struct layer *
open_image (struct store *store, const char *path, const struct stat *st,
            const struct purpose *purpose)
{
  struct named_files files;
  const struct image_env env = {
    .open_data = named_open_data,
    .open_backing = named_open_backing,
    .opaque = &files,
  };
  const struct image_options options = {
    .env = &env,
    .write_env = purpose->write_env,
    .snapshot = purpose->snapshot,
    .l2_cache_size = config.l2_cache_size,
    .decoded_cache_size = config.decoded_cache_size,
    .bitmap = config.bitmap,
    .check = config.check && purpose->snapshot == NULL,
    .want_data_file = config.data_file != NULL,
    .warn = !warned,
  };
  struct layer *image = NULL;

  if (named_files_init (&files, path, st) < 0) {
    nbdkit_error ("malloc: %m");
    store_close (store);
    return NULL;
  }
  files.writable = purpose->writable;
  files.lock = purpose->lock;
  files.connect = purpose->serve;
  if (image_open (store, &options, &image) < 0)
    image = NULL;
  named_files_free (&files);
  warned = true;
  return image;
}

/* A local file that says that it is a qcow2 image is opened once before the
 * server starts, so that a bad one fails the start, where somebody looks.
 * Without the magic number it may still be one, under a filter below us.
 */
static int
validate_local (void)
{
  uint32_t magic;
  struct stat st;
  struct store *store;
  struct layer *image;
  const int fd = open_local (false, &st);

  if (fd == -1)
    return 0;
  if (pread (fd, &magic, sizeof magic, 0) != sizeof magic
      || be32toh (magic) != QCOW2_MAGIC) {
    close (fd);
    return 0;
  }
  store = store_file_new (fd, config.image_path);
  if (store == NULL) {
    nbdkit_error ("%s: %m", config.image_path);
    return -1;
  }
  image = open_image (store, config.image_path, &st,
                      &(struct purpose) { .snapshot = config.snapshot });
  if (image == NULL)
    return -1;
  image_close (image);
  return 0;
}

/* With a client that stays connected but does nothing, what it has written
 * becomes durable all the same: it may be the server that is killed.
 */
#define IDLE_SECONDS 2

static void *
idle_thread (void *arg)
{
  pthread_mutex_lock (&sessions_lock);
  while (!quitting) {
    struct timespec when;

    clock_gettime (CLOCK_REALTIME, &when);
    when.tv_sec += IDLE_SECONDS;
    pthread_cond_timedwait (&quit_cond, &sessions_lock, &when);
    for (struct session *s = sessions; s && !quitting; s = s->next)
      if (s->image)
        image_settle (s->image, true);
  }
  pthread_mutex_unlock (&sessions_lock);
  return NULL;
}

static int
qcow2ext_after_fork (nbdkit_backend *backend)
{
  const int err = pthread_create (&idle, NULL, idle_thread, NULL);

  /* To fail here would be worse: the server has already said that it runs. */
  if (err)
    nbdkit_error ("warning: no thread for idle clients: %s", strerror (err));
  else
    idle_runs = true;
  return 0;
}

static void
stop_idle_thread (void)
{
  if (!idle_runs)
    return;
  pthread_mutex_lock (&sessions_lock);
  quitting = true;
  pthread_cond_signal (&quit_cond);
  pthread_mutex_unlock (&sessions_lock);
  pthread_join (idle, NULL);
}

/* The server quits.  Connections that have not ended do not any more. */
static void
qcow2ext_cleanup (nbdkit_backend *backend)
{
  stop_idle_thread ();
  LOCK_FOR_SCOPE (&sessions_lock);
  for (struct session *s = sessions; s; s = s->next)
    image_settle (s->image, false);
}

static int
qcow2ext_get_ready (int thread_model)
{
  serialize = thread_model < NBDKIT_THREAD_MODEL_PARALLEL;
  return validate_local ();
}

/* Takes or changes the lock of the image, for all sessions of this server.
 * It has a descriptor of its own, since sessions must not lock each other out.
 */
static int
lock_image (void)
{
  bool any = false, writing = false;
  struct stat st;
  int r;

  for (const struct session *s = sessions; s; s = s->next) {
    any = true;
    writing |= s->writable;
  }
  if (!any) {
    if (lock_fd != -1)
      close (lock_fd);
    lock_fd = -1;
    return 0;
  }
  if (!config.lock || (lock_fd != -1 && lock_writing == writing))
    return 0;
  if (lock_fd == -1)
    lock_fd = open_local (false, &st);
  if (lock_fd == -1)            /* not a local file, or not yet readable */
    return 0;
  r = image_lock (lock_fd, writing, config.image_path);
  lock_writing = r == 0 && writing;
  return r;
}

/* Opens the image of a session through the layers below. */
static int
open_session (struct session *s, nbdkit_backend *backend)
{
  struct stat st;
  int fd = open_local (s->writable, &st);
  struct store *store;
  struct image_write_env *env = &s->write_env;
  const struct purpose purpose = {
    .snapshot = s->snapshot,
    .writable = s->writable,
    .lock = config.lock,
    .serve = true,
    .write_env = s->writable ? env : NULL,
  };

  store = store_switch_open (backend,
                            config.image_path ? config.image_path
                                              : "the qcow2 image",
                            !s->writable, serialize, fd);
  if (store == NULL)
    return -1;
  *env = (struct image_write_env) {
    .refuse = store_switch_refuse,
    .prove = store_switch_prove,
    .opaque = store,
  };
  /* Once seen to be that file, it stays it, even if what a filter keeps for
   * itself (cow) differs from it by now.
   */
  local |= store_switch_is_local (store);
  s->image = open_image (store, local ? config.image_path : NULL, &st,
                         &purpose);
  if (s->image == NULL)
    return -1;
  /* It may have refused to be written to: others may, then. */
  s->writable = image_is_writable (s->image);
  if (lock_image () < 0
      || (config.lock && s->image->external && !config.data_is_nbd
          && store_file_lock (s->image->data, s->writable) < 0))
    return -1;
  s->description = image_describe (s->image);
  return 0;
}

static void
session_free (struct session *s)
{
  image_close (s->image);
  free (s->snapshot);
  free (s->description);
  free (s);
}

static bool
same_string (const char *a, const char *b)
{
  return a == b || (a && b && strcmp (a, b) == 0);
}

static void
session_unlink (struct session *s)
{
  struct session **p = &sessions;

  while (*p != s)
    p = &(*p)->next;
  *p = s->next;
  lock_image ();
}

/* Finds or opens the session of an export, under sessions_lock. */
static struct session *
session_get (nbdkit_backend *backend, bool writable, const char *snapshot)
{
  struct session *s;

  for (s = sessions; s; s = s->next)
    if (same_string (s->snapshot, snapshot))
      break;
  if (s == NULL) {
    s = calloc (1, sizeof *s);
    if (s == NULL || (snapshot && !(s->snapshot = strdup (snapshot)))) {
      nbdkit_error ("malloc: %m");
      free (s);
      return NULL;
    }
    s->writable = writable && snapshot == NULL && config.bitmap == NULL;
    s->next = sessions;
    sessions = s;
    if (lock_image () < 0 || open_session (s, backend) == -1) {
      session_unlink (s);
      session_free (s);
      return NULL;
    }
  }
  s->handles++;
  return s;
}

/* The last to leave finds everything as it should be on disk, before the
 * lock goes and before its client sees the connection end.
 */
static void
session_put (struct session *s)
{
  if (--s->handles > 0)
    return;
  image_settle (s->image, false);
  session_unlink (s);
  session_free (s);
}

static void
detach (struct handle *h)
{
  struct session *s;

  LOCK_FOR_SCOPE (&sessions_lock);
  pthread_rwlock_wrlock (&h->leaving);
  s = h->session;
  h->session = NULL;
  pthread_rwlock_unlock (&h->leaving);
  if (s)
    session_put (s);
}

static void *
qcow2ext_open (nbdkit_next_open *next, nbdkit_context *context, int readonly,
               const char *exportname, int is_tls)
{
  const char *snapshot = config.snapshot;
  struct handle *h = calloc (1, sizeof *h);

  if (h == NULL) {
    nbdkit_error ("calloc: %m");
    return NULL;
  }
  pthread_rwlock_init (&h->leaving, NULL);
  if (config.list_snapshots && exportname[0])
    snapshot = exportname;

  LOCK_FOR_SCOPE (&sessions_lock);
  h->readonly = readonly;
  h->session = session_get (nbdkit_context_get_backend (context), !readonly,
                            snapshot);
  if (h->session == NULL) {
    handle_free (h);
    return NULL;
  }
  h->next = handles;
  h->prev = &handles;
  if (h->next)
    h->next->prev = &h->next;
  handles = h;
  return h;
}

static int
qcow2ext_finalize (nbdkit_next *next, void *handle)
{
  detach (handle);
  return 0;
}

static void
qcow2ext_close (void *handle)
{
  struct handle *h = handle;

  detach (h);
  LOCK_FOR_SCOPE (&sessions_lock);
  *h->prev = h->next;
  if (h->next)
    h->next->prev = h->prev;
  handle_free (h);
}

/* Describes a snapshot: name, date and the time the guest had run. */
static int
add_snapshot_export (struct nbdkit_exports *exports, const struct snapshot *s)
{
  const time_t date = s->date_sec;
  const uint64_t ms = s->vm_clock_nsec / 1000000;
  char when[64] = "", *description;
  struct tm tm;
  int r;

  /* What NBD cannot name can still be had with qcow2ext-snapshot=. */
  if (s->id[0] == '\0' || strlen (s->id) > NBD_MAX_STRING)
    return 0;

  if (gmtime_r (&date, &tm))
    strftime (when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", &tm);
  if (asprintf (&description,
                "snapshot \"%.1000s\", %s, VM clock %02" PRIu64
                ":%02u:%02u.%03u",
                s->name, when, ms / 3600000, (unsigned) (ms / 60000 % 60),
                (unsigned) (ms / 1000 % 60), (unsigned) (ms % 1000)) == -1)
    return -1;
  report_mask (description);
  r = nbdkit_add_export (exports, s->id, description);
  free (description);
  return r;
}

static int
qcow2ext_list_exports (nbdkit_next_list_exports *next, nbdkit_backend *nxdata,
                       int readonly, int is_tls,
                       struct nbdkit_exports *exports)
{
  const struct snapshot_list *list;
  struct session *s;
  int r;

  if (!config.list_snapshots)
    return nbdkit_add_export (exports, "", NULL);

  LOCK_FOR_SCOPE (&sessions_lock);
  s = session_get (nxdata, !readonly, NULL);
  if (s == NULL)
    return -1;
  r = nbdkit_add_export (exports, "", s->description);
  list = s->image->snapshots;
  for (size_t i = 0; r == 0 && i < list->count && i < MAX_EXPORTS - 1; i++)
    r = add_snapshot_export (exports, &list->snapshot[i]);
  if (list->count > MAX_EXPORTS - 1)
    nbdkit_error ("warning: only %d of %zu snapshots are listed; all can be "
                  "opened", MAX_EXPORTS - 1, list->count);
  session_put (s);
  return r;
}

static const char *
qcow2ext_default_export (nbdkit_next_default_export *next,
                         nbdkit_backend *nxdata, int readonly, int is_tls)
{
  return "";
}

static struct layer *
image_of (void *handle)
{
  return ((struct handle *) handle)->session->image;
}

static int64_t
qcow2ext_get_size (nbdkit_next *next, void *handle)
{
  return image_of (handle)->size;
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
  const struct layer *image = image_of (handle);

  *minimum = 1;
  *preferred = UINT32_C (1) << image->unit_bits;
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

  return !h->readonly && image_is_writable (h->session->image);
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
  return done (image_read (image_of (handle), buf, count, offset), err);
}

/* What a change with FUA has to add. */
static int
done_change (struct layer *image, int r, uint32_t flags, int *err)
{
  if (r == 0 && (flags & NBDKIT_FLAG_FUA))
    r = image_flush (image);
  return done (r, err);
}

static int
qcow2ext_pwrite (nbdkit_next *next, void *handle, const void *buf,
                 uint32_t count, uint64_t offset, uint32_t flags, int *err)
{
  struct layer *image = image_of (handle);

  return done_change (image, image_write (image, buf, count, offset), flags,
                      err);
}

static int
qcow2ext_zero (nbdkit_next *next, void *handle, uint32_t count,
               uint64_t offset, uint32_t flags, int *err)
{
  struct layer *image = image_of (handle);
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
  struct layer *image = image_of (handle);

  return done_change (image, image_trim (image, count, offset), flags, err);
}

static int
qcow2ext_flush (nbdkit_next *next, void *handle, uint32_t flags, int *err)
{
  return done (image_flush (image_of (handle)), err);
}

/* Joins extents of equal type before nbdkit gets them. */
struct collector {
  struct nbdkit_extents *extents;
  bool one;                     /* the client wants only the first */
  unsigned added;
  uint64_t offset, length;      /* not yet added, if length > 0 */
  unsigned type;
};

static int
add_pending (struct collector *c)
{
  if (c->length
      && nbdkit_add_extent (c->extents, c->offset, c->length, c->type) == -1)
    return errno ? -errno : -EIO;
  return ++c->added >= MAX_EXTENTS_REPLY || c->one;
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

static int
qcow2ext_extents (nbdkit_next *next, void *handle, uint32_t count,
                  uint64_t offset, uint32_t flags,
                  struct nbdkit_extents *extents, int *err)
{
  struct collector c = {
    .extents = extents, .one = flags & NBDKIT_FLAG_REQ_ONE
  };
  int r = image_extents (image_of (handle), count, offset, collect, &c);

  if (r == 0)
    r = add_pending (&c);
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
    image_cache (h->session->image, count, offset);
  pthread_rwlock_unlock (&h->leaving);
  return 0;
}

#if NBDKIT_VERSION_MAJOR > 1 || NBDKIT_VERSION_MINOR >= 36
/* For scripts.  The manual page says what the lines mean. */
static const struct {
  const char *name, *value;
} dump[] = {
  { "version", PACKAGE_VERSION },
  { "qcow2_versions", "2 3" },
  { "qcow2_features",
    "dirty corrupt data-file compression-type extended-l2 lazy-refcounts "
    "bitmaps data-file-raw" },
  { "zlib", "yes" },
  { "zstd", "yes" },
#ifdef HAVE_LIBDEFLATE
  { "libdeflate", "yes" },
#else
  { "libdeflate", "no" },
#endif
#ifdef HAVE_LIBNBD
  { "libnbd", "yes" },
#else
  { "libnbd", "no" },
#endif
};

static void
qcow2ext_dump_plugin (void)
{
  for (size_t i = 0; i < sizeof dump / sizeof dump[0]; i++)
    printf ("qcow2ext_%s=%s\n", dump[i].name, dump[i].value);
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
