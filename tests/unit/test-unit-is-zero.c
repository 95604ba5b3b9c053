/* qcow2ext: is memory all zeros?
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * All small sizes, each with one byte set anywhere, and with bytes set around
 * it; the last ones end at a page that must not be touched.
 */

#include "build-config.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/is-zero.h"

#define SMALL 150

static void
expect (bool result, bool expected, size_t size, size_t where)
{
  if (result != expected) {
    fprintf (stderr, "%zu bytes, byte %zu: is_zero says %d\n", size, where,
             result);
    exit (EXIT_FAILURE);
  }
}

/* The range, with all around it set. */
static void
check_range (uint8_t *p, size_t size)
{
  p[-1] = 0xff;
  memset (p, 0, size);
  expect (is_zero (p, size), true, size, 0);
  for (size_t i = 0; i < size; i++) {
    p[i] = 0x80;
    expect (is_zero (p, size), false, size, i);
    p[i] = 0;
  }
}

int
main (void)
{
  const size_t page = sysconf (_SC_PAGESIZE);
  uint8_t *map = mmap (NULL, 3 * page, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint8_t *end = map + 2 * page;

  if (map == MAP_FAILED || mprotect (end, page, PROT_NONE) == -1) {
    perror ("mmap");
    return EXIT_FAILURE;
  }
  for (size_t size = 0; size <= SMALL; size++) {
    for (size_t align = 0; align < 16; align++) {
      map[align + 1 + size] = 0xff;
      check_range (map + align + 1, size);
    }
    check_range (end - size, size);
  }
  check_range (end - page - 3, page + 3);
  return EXIT_SUCCESS;
}
