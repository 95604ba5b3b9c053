/* qcow2ext: libnbd, if it is needed.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#ifdef HAVE_LIBNBD

#include <dlfcn.h>
#include <stddef.h>

#include "load-libnbd.h"
#include "base/report.h"

/* libnbd promises that what was compiled for this name goes on working. */
#define SONAME "libnbd.so.0"

struct libnbd libnbd;

int
load_libnbd (void)
{
  static const struct { const char *name; size_t offset; } functions[] = {
#define ENTRY(name) { "nbd_" #name, offsetof (struct libnbd, name) },
    LIBNBD_FUNCTIONS (ENTRY)
#undef ENTRY
  };
  /* Never unloaded: threads that used it have something to clean up when they
   * end.
   */
  void *library = dlopen (SONAME, RTLD_NOW | RTLD_LOCAL);

  if (library == NULL) {
    report_error ("a file on an NBD server needs libnbd, which cannot be "
                  "loaded: %s", dlerror ());
    return -1;
  }
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    void *f = dlsym (library, functions[i].name);

    if (f == NULL) {
      report_error ("a file on an NBD server needs libnbd 1.14 or later: "
                    "%s", dlerror ());
      return -1;
    }
    *(void **) ((char *) &libnbd + functions[i].offset) = f;
  }
  return 0;
}

#endif /* HAVE_LIBNBD */
