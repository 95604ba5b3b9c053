/* qcow2ext: text that may be shown.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdint.h>

#include "base/printable.h"

unsigned
printable_length (const char *text)
{
  static const uint32_t first[] = { 0x80, 0x800, 0x10000 };
  const unsigned char *s = (const unsigned char *) text;
  const unsigned n = s[0] < 0x80 ? 1 : s[0] < 0xC0 ? 0 : s[0] < 0xE0 ? 2
                     : s[0] < 0xF0 ? 3 : s[0] < 0xF8 ? 4 : 0;
  uint32_t c;

  if (n < 2)
    return s[0] >= ' ' && s[0] != 0x7F ? n : 0;
  c = s[0] & (0x7F >> n);
  for (unsigned i = 1; i < n; i++) {
    if ((s[i] & 0xC0) != 0x80)
      return 0;
    c = c << 6 | (s[i] & 0x3F);
  }
  if (c < first[n - 2] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)
      || (c >= 0x80 && c < 0xA0) || c == 0x2028 || c == 0x2029)
    return 0;
  return n;
}

void
printable_mask (char *text)
{
  unsigned n;

  for (char *p = text; *p; p += n ? n : 1) {
    n = printable_length (p);
    if (n == 0)
      *p = '?';
  }
}
