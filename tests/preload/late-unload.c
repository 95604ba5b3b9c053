/* qcow2ext: what is unloaded has gone for a while before the process ends, for
 * test-threads-end.sh.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Goes before the C library (LD_PRELOAD).
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <unistd.h>

int
dlclose (void *handle)
{
  int (*next) (void *) = (int (*) (void *)) dlsym (RTLD_NEXT, "dlclose");
  const int r = next (handle);

  usleep (500000);
  return r;
}
