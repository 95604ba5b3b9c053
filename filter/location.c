/* qcow2ext: where the operator says that a file is.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#include <nbdkit-filter.h>

#include "load-libnbd.h"
#include "location.h"

/* What libnbd takes for the URI of an NBD server.  A file of such a name can
 * still be given with "./" before it.
 */
static bool
is_nbd_uri (const char *value)
{
  static const char *const schemes[] = {
    "nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://",
    "nbds+vsock://",
  };

  for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
    if (strncmp (value, schemes[i], strlen (schemes[i])) == 0)
      return true;
  return false;
}

/* The server changes its directory before it connects, so paths in a URI have
 * to be absolute.
 */
static int
check_uri_paths (const char *key, const char *uri)
{
  static const char *const paths[] = {
    "socket=", "tls-certificates=", "tls-psk-file=",
  };
  const char *p = strchr (uri, '?');

  while (p) {
    p++;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
      const size_t n = strlen (paths[i]);

      if (strncmp (p, paths[i], n) == 0 && p[n] != '/'
          && strncasecmp (p + n, "%2f", 3) != 0) {
        nbdkit_error ("%s=%s: the path after %s must be absolute", key, uri,
                      paths[i]);
        return -1;
      }
    }
    p = strpbrk (p, "&;");
  }
  return 0;
}

int
location_parse (const char *key, const char *value, struct location *l)
{
  l->is_nbd = is_nbd_uri (value);
  if (!l->is_nbd) {
    l->name = nbdkit_absolute_path (value);
    return l->name ? 0 : -1;
  }
  if (check_uri_paths (key, value) == -1)
    return -1;
#ifndef HAVE_LIBNBD
  nbdkit_error ("%s=%s: this filter was built without libnbd, so no file can "
                "be on an NBD server", key, value);
  return -1;
#else
  if (load_libnbd () == -1)
    return -1;
  l->name = strdup (value);
  if (l->name == NULL)
    nbdkit_error ("strdup: %m");
  return l->name ? 0 : -1;
#endif
}
