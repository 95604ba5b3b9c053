/* qcow2ext: preloaded into nbdkit, this keeps it from unloading anything, and
 * has a sanitizer ready before anything else runs.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <dlfcn.h>
#include <stdlib.h>

/* A sanitizer initializes itself when memory is first allocated, and asks
 * dlerror() meanwhile.  Without this the first to allocate may be the
 * constructor of some library, from within newlocale(), which holds a lock that
 * dlerror() takes and lets go, too; then the process hangs when it exits.  This
 * library is linked with -z initfirst, so this comes before all of them.
 */
static void __attribute__ ((__constructor__))
allocate_first (void)
{
  void *volatile p = malloc (1);

  free (p);
}

int
dlclose (void *handle)
{
  (void) handle;
  return 0;
}
