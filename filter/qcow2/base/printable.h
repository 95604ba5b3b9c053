/* qcow2ext: text that may be shown.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_PRINTABLE_H
#define QCOW2_PRINTABLE_H

/* The length in bytes of the UTF-8 character that text begins with, or 0 if it
 * is none, or one that could forge a line of a log or change what a terminal
 * does: the control characters of ASCII and of Latin-1, and U+2028 and U+2029.
 * Text ends with a zero byte, which counts as such.  (RFC 3629)
 */
unsigned printable_length (const char *text);

/* Puts a question mark in the place of each byte that is not part of such a
 * character.
 */
void printable_mask (char *text);

#endif /* QCOW2_PRINTABLE_H */
