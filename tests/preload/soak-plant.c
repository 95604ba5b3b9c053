/* qcow2ext: leaks for the soak test to find.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Preloaded into nbdkit, this leaks what SOAK_PLANT says with every write:
 * "memory" or "fds".  (For "file", soak.sh itself makes the image longer.)
 */

#include "build-config.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define LEAK 65536

/* What nobody can see is optimised away. */
void *volatile soak_plant_last;

static int
planted (const char *what)
{
  const char *env = getenv ("SOAK_PLANT");

  return env && strcmp (env, what) == 0;
}

ssize_t
pwrite (int fd, const void *buf, size_t count, off_t offset)
{
  static ssize_t (*next) (int, const void *, size_t, off_t);
  static int writes;

  /* Where off_t has 64 bits by configure's doing, so has this. */
  if (next == NULL)
    next = (ssize_t (*) (int, const void *, size_t, off_t))
      dlsym (RTLD_NEXT, sizeof (off_t) == 8 ? "pwrite64" : "pwrite");
  if (planted ("memory") && (soak_plant_last = malloc (LEAK)) != NULL)
    memset (soak_plant_last, 1, LEAK);
  if (planted ("fds")
      && __atomic_fetch_add (&writes, 1, __ATOMIC_RELAXED) % 64 == 0)
    (void) !dup (fd);
  return next (fd, buf, count, offset);
}
