/* qcow2ext: libgcrypt, if it is needed.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/report.h"
#include "load-gcrypt.h"

/* What was compiled for this name goes on working with later releases. */
#define SONAME "libgcrypt.so.20"

/* The first one with XTS. */
#define MINIMUM_VERSION "1.8.0"

/* Room for the contexts of some images.  Where it is used up, contexts are in
 * ordinary memory.
 */
#define SECURE_BYTES (512 * 1024)

struct libgcrypt libgcrypt;

/* Nobody else in this process had set it up before. */
static bool ours;

static int
find_functions (void *library)
{
  static const struct { const char *name; size_t offset; } functions[] = {
#define ENTRY(name) { "gcry_" #name, offsetof (struct libgcrypt, name) },
    LIBGCRYPT_FUNCTIONS (ENTRY)
#undef ENTRY
  };

  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    void *f = dlsym (library, functions[i].name);

    if (f == NULL)
      return -1;
    *(void **) ((char *) &libgcrypt + functions[i].offset) = f;
  }
  return 0;
}

int
load_libgcrypt (void)
{
  /* Never unloaded, since others in the process may use it. */
  void *library = dlopen (SONAME, RTLD_NOW | RTLD_LOCAL);

  if (library == NULL) {
    report_error ("an encrypted image needs libgcrypt, which cannot be "
                  "loaded: %s", dlerror ());
    return -1;
  }
  if (find_functions (library) == -1
      || libgcrypt.check_version (MINIMUM_VERSION) == NULL) {
    report_error ("an encrypted image needs libgcrypt " MINIMUM_VERSION
                  " or later");
    return -1;
  }
  if (!libgcrypt.control (GCRYCTL_INITIALIZATION_FINISHED_P)) {
    ours = true;
    /* That memory cannot be locked is nothing that the user must know. */
    libgcrypt.control (GCRYCTL_DISABLE_SECMEM_WARN);
    libgcrypt.control (GCRYCTL_INIT_SECMEM, SECURE_BYTES, 0);
    libgcrypt.control (GCRYCTL_INITIALIZATION_FINISHED, 0);
  }
  return 0;
}

void
relock_libgcrypt (void)
{
  if (!ours)
    return;
  libgcrypt.control (GCRYCTL_TERM_SECMEM);
  libgcrypt.control (GCRYCTL_DISABLE_SECMEM_WARN);
  libgcrypt.control (GCRYCTL_INIT_SECMEM, SECURE_BYTES, 0);
}
