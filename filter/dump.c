/* qcow2ext: what this build can do.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdio.h>

#include "dump.h"

/* The manual page says what the lines mean. */
static const struct {
  const char *name, *value;
} facts[] = {
  { "version", PACKAGE_VERSION },
  { "qcow2_versions", "2 3" },
  { "qcow2_features",
    "dirty corrupt data-file compression-type extended-l2 lazy-refcounts "
    "bitmaps data-file-raw luks" },
  { "zlib", "yes" },
  { "zstd", "yes" },
#ifdef HAVE_LIBDEFLATE
  { "libdeflate", "yes" },
#else
  { "libdeflate", "no" },
#endif
#ifdef HAVE_LIBGCRYPT
  { "libgcrypt", "yes" },
#else
  { "libgcrypt", "no" },
#endif
#ifdef HAVE_LIBNBD
  { "libnbd", "yes" },
#else
  { "libnbd", "no" },
#endif
};

void
dump_build (void)
{
  for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++)
    printf ("qcow2ext_%s=%s\n", facts[i].name, facts[i].value);
}
