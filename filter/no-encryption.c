/* qcow2ext: no encrypted images, for want of libgcrypt.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "encryption.h"

int
encryption_set_passphrase (char *passphrase)
{
  explicit_bzero (passphrase, strlen (passphrase));
  free (passphrase);
  report_error ("qcow2ext-passphrase: this filter was built without "
                "libgcrypt, so it cannot open encrypted images");
  return -1;
}

bool
encryption_has_passphrase (void)
{
  return false;
}

void
encryption_after_fork (void)
{
}

void
encryption_unload (void)
{
}

int
encryption_open (void *opaque, struct store *file, uint64_t offset,
                 uint64_t length, struct store *clusters,
                 struct store **result)
{
  (void) opaque, (void) offset, (void) length, (void) clusters, (void) result;
  report_error ("%s: the image is encrypted (LUKS), and this filter was built "
                "without libgcrypt, which that needs", file->name);
  return -ENOTSUP;
}
