/* qcow2ext: preloaded into nbdkit, this keeps it from unloading anything, and
 * has a sanitizer ready before anything else runs.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool
ends_with (const char *s, const char *end)
{
  const size_t a = strlen (s), b = strlen (end);

  return a >= b && strcmp (s + a - b, end) == 0;
}

/* A sanitizer initializes itself when memory is first allocated, and asks
 * dlerror() meanwhile.  Without this the first to allocate may be the
 * constructor of some library, from within newlocale(), which holds a lock that
 * dlerror() takes and lets go, too; then the process hangs when it exits.  This
 * library is linked with -z initfirst, so this comes before all of them.
 */
static void __attribute__ ((__constructor__))
before_others (int argc, char **argv, char **envp)
{
  void *volatile p = malloc (1);
  char **to = envp;

  free (p);

  /* What nbdkit runs is not what is tested, but what runs it (valgrind) has to
   * preserve the variable.  There is no unsetenv() so early.
   */
  if (argc < 1 || !ends_with (argv[0], "nbdkit"))
    return;
  for (; *envp; envp++)
    if (strncmp (*envp, "LD_PRELOAD=", strlen ("LD_PRELOAD=")) != 0)
      *to++ = *envp;
  *to = NULL;
}

int
dlclose (void *handle)
{
  (void) handle;
  return 0;
}
