/* qcow2ext: our own descriptor of a served image's file.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "beneath.h"
#include "config.h"
#include "directory.h"
#include "file-id.h"
#include "image-file.h"

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

/* An image of a directory is served through our own descriptor or not at all. */
static int
open_in_directory (const struct served_image *served, bool writable,
                   struct stat *st)
{
  const int fd = directory_open_file (served->name, writable, st);

  if (fd < 0)
    nbdkit_error ("%s: %s", served->path, directory_explain (fd));
  return fd < 0 ? IMAGE_FILE_NOT_OPENED : fd;
}

/* Does the error say that the file is there, and can be opened another time?
 * What is below us may be able to do so now, but without our own descriptor the
 * image would be neither locked nor able to grow.
 */
static bool
is_for_now (int error)
{
  return error == -EBUSY || error == -EAGAIN || error == -EINTR
    || error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

int
image_file_open (const struct served_image *served, bool writable,
                 struct stat *st)
{
  int fd;

  if (served->name)
    return open_in_directory (served, writable, st);
  if (served->path == NULL)
    return IMAGE_FILE_NOT_LOCAL;
  fd = beneath_open (AT_FDCWD, served->path, writable, st);
  if (is_for_now (fd)) {
    nbdkit_error ("%s: the image cannot be opened: %s", served->path,
                  beneath_explain (fd));
    return IMAGE_FILE_NOT_OPENED;
  }
  if (fd < 0) {
    /* With file= the plugin cannot open it either, and says so. */
    if (config.image_fd != -1 && fd != -ENOENT && fd != -EINVAL)
      nbdkit_error ("%s: the file of fd= cannot be opened a second time, so "
                    "it is treated as one that is not local: %s",
                    served->path, strerror (-fd));
    return IMAGE_FILE_NOT_LOCAL;
  }
  if (config.image_fd != -1 && !same_as_fd (st)) {
    close (fd);
    return IMAGE_FILE_NOT_LOCAL;
  }
  return fd;
}
