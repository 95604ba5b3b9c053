/* qcow2ext: which filters lie between this one and the client.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * nbdkit does not tell.  But it loads the plugin first, and then the filters
 * from the one that is next to it upwards: what was loaded after us is above us.
 */

#include "build-config.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>

#include "filters-above.h"

struct search {
  const void *ourselves;        /* where we are loaded */
  bool passed;                  /* that was seen */
  const char *found;
};

static int
look (struct dl_phdr_info *info, size_t size, void *opaque)
{
  static const char *const mixing[] = { "cow", "cache", "cacheextents" };
  struct search *s = opaque;
  const char *name = strrchr (info->dlpi_name, '/');

  (void) size;
  if ((const void *) info->dlpi_addr == s->ourselves)
    s->passed = true;
  else if (s->passed && name && strncmp (name, "/nbdkit-", 8) == 0)
    for (size_t i = 0; i < sizeof mixing / sizeof mixing[0]; i++) {
      const size_t n = strlen (mixing[i]);

      if (strncmp (name + 8, mixing[i], n) == 0
          && strcmp (name + 8 + n, "-filter.so") == 0)
        s->found = mixing[i];
    }
  return s->found != NULL;
}

const char *
filters_above_mix (void)
{
  static const char here;
  struct search s = { .found = NULL };
  Dl_info info;

  if (dladdr (&here, &info) == 0)
    return NULL;
  s.ourselves = info.dli_fbase;
  dl_iterate_phdr (look, &s);
  return s.found;
}
