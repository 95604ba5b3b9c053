/* qcow2ext: the linker sends calls of clock_gettime to a test.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * With -Wl,--wrap=clock_gettime,--wrap=__clock_gettime64: where time_t has 64
 * bits only if asked for, what is called has another name.
 */

#ifndef WRAP_CLOCK_H
#define WRAP_CLOCK_H

#include <time.h>

#if defined _TIME_BITS && _TIME_BITS == 64 && __TIMESIZE == 32
#define CLOCK_GETTIME "__clock_gettime64"
#else
#define CLOCK_GETTIME "clock_gettime"
#endif

int wrap_clock_gettime (clockid_t clock, struct timespec *ts)
  __asm__ ("__wrap_" CLOCK_GETTIME);
int real_clock_gettime (clockid_t clock, struct timespec *ts)
  __asm__ ("__real_" CLOCK_GETTIME);

#endif /* WRAP_CLOCK_H */
