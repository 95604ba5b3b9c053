/* qcow2ext: an nbdkit plugin that keeps all that is done to a disk.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   nbdkit nbdkit-record-plugin.so log=FILE size=SIZE
 *
 * The disk is in memory and empty at first.  Each change and each flush is
 * appended to the log, in one piece: a letter (W, Z, T, F), then, with the most
 * significant byte first, 8 bytes of the offset and 4 of the length, then what
 * was written.  So the length of the log says how far things have come.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS

static char *log_name;
static int log_fd = -1;
static int64_t size;
static uint8_t *disk;

static int
record_config (const char *key, const char *value)
{
  if (strcmp (key, "log") == 0) {
    log_name = nbdkit_absolute_path (value);
    return log_name ? 0 : -1;
  }
  if (strcmp (key, "size") == 0) {
    size = nbdkit_parse_size (value);
    return size < 0 ? -1 : 0;
  }
  nbdkit_error ("unknown parameter '%s'", key);
  return -1;
}

static int
record_get_ready (void)
{
  if (log_name == NULL || size == 0) {
    nbdkit_error ("log and size are needed");
    return -1;
  }
  log_fd = open (log_name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC,
                 0600);
  if (log_fd < 0) {
    nbdkit_error ("%s: %m", log_name);
    return -1;
  }
  disk = mmap (NULL, size, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (disk == MAP_FAILED) {
    nbdkit_error ("memory: %m");
    return -1;
  }
  return 0;
}

static void
record_unload (void)
{
  if (log_fd >= 0)
    close (log_fd);
  free (log_name);
}

static void *
record_open (int readonly)
{
  (void) readonly;
  return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t
record_get_size (void *handle)
{
  (void) handle;
  return size;
}

static int
record_can_multi_conn (void *handle)
{
  (void) handle;
  return 1;
}

static int
record (char what, uint64_t offset, uint32_t length, const void *data)
{
  uint8_t head[13] = { what };
  struct iovec part[2] = {
    { .iov_base = head, .iov_len = sizeof head },
    { .iov_base = (void *) data, .iov_len = data ? length : 0 },
  };
  const size_t total = part[0].iov_len + part[1].iov_len;

  for (unsigned i = 0; i < 8; i++)
    head[1 + i] = offset >> (56 - 8 * i);
  for (unsigned i = 0; i < 4; i++)
    head[9 + i] = length >> (24 - 8 * i);
  if (writev (log_fd, part, 2) != (ssize_t) total) {
    nbdkit_error ("%s: %m", log_name);
    errno = EIO;
    return -1;
  }
  return 0;
}

static int
record_pread (void *handle, void *buf, uint32_t count, uint64_t offset,
              uint32_t flags)
{
  (void) handle, (void) flags;
  memcpy (buf, disk + offset, count);
  return 0;
}

static int
record_pwrite (void *handle, const void *buf, uint32_t count, uint64_t offset,
               uint32_t flags)
{
  (void) handle, (void) flags;
  memcpy (disk + offset, buf, count);
  return record ('W', offset, count, buf);
}

static int
record_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  (void) handle, (void) flags;
  memset (disk + offset, 0, count);
  return record ('Z', offset, count, NULL);
}

static int
record_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  (void) handle, (void) flags;
  memset (disk + offset, 0, count);
  return record ('T', offset, count, NULL);
}

static int
record_flush (void *handle, uint32_t flags)
{
  (void) handle, (void) flags;
  return record ('F', 0, 0, NULL);
}

static struct nbdkit_plugin plugin = {
  .name = "record",
  .version = PACKAGE_VERSION,
  .longname = "qcow2ext test plugin",
  .config = record_config,
  .get_ready = record_get_ready,
  .unload = record_unload,
  .open = record_open,
  .get_size = record_get_size,
  .can_multi_conn = record_can_multi_conn,
  .pread = record_pread,
  .pwrite = record_pwrite,
  .zero = record_zero,
  .trim = record_trim,
  .flush = record_flush,
};

NBDKIT_REGISTER_PLUGIN (plugin)
