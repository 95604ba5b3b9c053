/* qcow2ext: what the image's own file says that it consists of.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * An image is read through the layers below, which have opened it themselves,
 * by its name.  That they show the same as our own descriptor is seen by
 * comparing, and is true at that moment.  What they have open may all the same
 * be another file, with a copy of this one in it, whose owner changes it
 * afterwards.  Such a file may hold any guest data, but it does not say which
 * files in the directory of ours are opened.
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/report.h"
#include "disk/header.h"
#include "own-header.h"
#include "store-file.h"

int
own_header_names (int fd, const struct store *of, bool is_data,
                  const char *name)
{
  const int again = fcntl (fd, F_DUPFD_CLOEXEC, 0);
  struct store *store = again == -1 ? NULL : store_file_new (again, of->name);
  struct header header;
  const char *own;
  int r;

  if (store == NULL) {
    r = -errno;
    report_error ("%s: %s", of->name, strerror (-r));
    return r;
  }
  r = header_read (store, &header);
  store_close (store);
  if (r < 0)
    return r;
  own = is_data ? header.data_file : header.backing_file;
  r = own && strcmp (own, name) == 0;
  header_free (&header);
  return r;
}
