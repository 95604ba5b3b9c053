/* qcow2ext: an nbdkit plugin of which each connection is by itself.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   nbdkit nbdkit-connections-plugin.so path=FILE [log=FILE]
 *
 * It serves a file like a plugin that opens a connection to a server for each
 * of ours, and whose language takes one call at a time: a flush is about
 * changes of its own connection, and calls must not overlap, which is reported
 * as an error.  Each change and flush is a line in the log: W or F, and the
 * number of the connection.  Reading and closing take some time.
 */

#include "build-config.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS

#define PAUSE 2000              /* microseconds */

struct connection {
  unsigned number;
};

static char *path, *log_name;
static int fd = -1, log_fd = -1;
static atomic_uint inside;
static atomic_uint connections;

static void
enter (const char *name)
{
  if (atomic_fetch_add (&inside, 1) != 0)
    nbdkit_error ("two calls at once: %s", name);
}

static void
leave (void)
{
  atomic_fetch_sub (&inside, 1);
}

static int
connections_config (const char *key, const char *value)
{
  char **name = strcmp (key, "path") == 0 ? &path
    : strcmp (key, "log") == 0 ? &log_name : NULL;

  if (name == NULL) {
    nbdkit_error ("unknown parameter '%s'", key);
    return -1;
  }
  *name = nbdkit_absolute_path (value);
  return *name ? 0 : -1;
}

static int
connections_get_ready (void)
{
  fd = open (path ? path : "", O_RDWR | O_CLOEXEC);
  if (fd == -1) {
    nbdkit_error ("%s: %m", path ? path : "path");
    return -1;
  }
  if (log_name) {
    log_fd = open (log_name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC,
                   0600);
    if (log_fd == -1) {
      nbdkit_error ("%s: %m", log_name);
      return -1;
    }
  }
  return 0;
}

static void
connections_unload (void)
{
  if (fd != -1)
    close (fd);
  if (log_fd != -1)
    close (log_fd);
  free (path);
  free (log_name);
}

static void *
connections_open (int readonly)
{
  struct connection *c = malloc (sizeof *c);

  (void) readonly;
  enter ("open");
  if (c)
    c->number = ++connections;
  else
    nbdkit_error ("malloc: %m");
  leave ();
  return c;
}

static void
connections_close (void *handle)
{
  enter ("close");
  usleep (PAUSE);
  free (handle);
  leave ();
}

static int64_t
connections_get_size (void *handle)
{
  (void) handle;
  return lseek (fd, 0, SEEK_END);
}

static int
note (char what, const struct connection *c)
{
  if (log_fd == -1 || dprintf (log_fd, "%c %u\n", what, c->number) > 0)
    return 0;
  nbdkit_error ("%s: %m", log_name);
  return -1;
}

static int
connections_pread (void *handle, void *buf, uint32_t count, uint64_t offset,
                   uint32_t flags)
{
  ssize_t r;

  (void) handle, (void) flags;
  enter ("pread");
  usleep (PAUSE);
  r = pread (fd, buf, count, offset);
  leave ();
  return r == (ssize_t) count ? 0 : -1;
}

static int
connections_pwrite (void *handle, const void *buf, uint32_t count,
                    uint64_t offset, uint32_t flags)
{
  ssize_t r;

  (void) flags;
  enter ("pwrite");
  r = pwrite (fd, buf, count, offset);
  if (note ('W', handle) == -1)
    r = -1;
  leave ();
  return r == (ssize_t) count ? 0 : -1;
}

static int
connections_flush (void *handle, uint32_t flags)
{
  int r;

  (void) flags;
  enter ("flush");
  r = note ('F', handle);
  leave ();
  return r;
}

static struct nbdkit_plugin plugin = {
  .name = "connections",
  .version = PACKAGE_VERSION,
  .longname = "qcow2ext test plugin",
  .config = connections_config,
  .get_ready = connections_get_ready,
  .unload = connections_unload,
  .open = connections_open,
  .close = connections_close,
  .get_size = connections_get_size,
  .pread = connections_pread,
  .pwrite = connections_pwrite,
  .flush = connections_flush,
};

NBDKIT_REGISTER_PLUGIN (plugin)
