/* qcow2ext: what the engine says, and what it does not let others say.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Names in a message come from images and clients.  Only characters that can
 * neither forge a line nor change a terminal pass; the limits of each length
 * of UTF-8 are tried.  A bad image does not fill the log.
 */

#include "build-config.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "base/printable.h"
#include "base/report.h"
#include "wrap-clock.h"

static struct timespec now = { .tv_sec = 1000 };

int
wrap_clock_gettime (clockid_t clock, struct timespec *t)
{
  CHECK (clock == CLOCK_MONOTONIC);
  *t = now;
  return 0;
}

static void
test_characters (void)
{
  static const struct { const char *text; unsigned length; } cases[] = {
    { "", 0 }, { "\x1f", 0 }, { " ", 1 }, { "~", 1 }, { "\x7f", 0 },
    /* The first byte of none. */
    { "\x80", 0 }, { "\xbf", 0 }, { "\xf8\x88\x80\x80\x80", 0 },
    { "\xf8\x90\x80\x80", 0 }, { "\xff", 0 },
    /* Two bytes: too long for what they say, control characters, others. */
    { "\xc0\x80", 0 }, { "\xc1\xbf", 0 }, { "\xc2\x80", 0 },
    { "\xc2\x9f", 0 }, { "\xc2\xa0", 2 }, { "\xdf\xbf", 2 },
    /* Three: with the ends of lines, and surrogates. */
    { "\xe0\x9f\xbf", 0 }, { "\xe0\xa0\x80", 3 }, { "\xe2\x80\xa7", 3 },
    { "\xe2\x80\xa8", 0 }, { "\xe2\x80\xa9", 0 }, { "\xe2\x80\xaa", 3 },
    { "\xed\x9f\xbf", 3 }, { "\xed\xa0\x80", 0 }, { "\xed\xbf\xbf", 0 },
    { "\xee\x80\x80", 3 }, { "\xef\xbf\xbf", 3 },
    /* Four. */
    { "\xf0\x8f\xbf\xbf", 0 }, { "\xf0\x90\x80\x80", 4 },
    { "\xf4\x8f\xbf\xbf", 4 }, { "\xf4\x90\x80\x80", 0 },
    { "\xf7\xbf\xbf\xbf", 0 },
    /* Cut short. */
    { "\xc3", 0 }, { "\xc3\xc3", 0 }, { "\xc3" "A", 0 }, { "\xe2\x82", 0 },
    { "\xe2\x82" "A", 0 }, { "\xf0\x90\x80", 0 },
  };
  char text[] = "a\nb\xe4\xc3\xa4\x80 \x1b[c";

  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    CHECK (printable_length (cases[i].text) == cases[i].length);
  printable_mask (text);
  CHECK (strcmp (text, "a?b?\xc3\xa4? ?[c") == 0);
}

/* Before a sink is set, messages go to stderr. */
static void
test_stderr (void)
{
  FILE *f = tmpfile ();
  const int saved = dup (STDERR_FILENO);
  char text[200];
  size_t n;

  CHECK (f && saved >= 0);
  fflush (stderr);
  dup2 (fileno (f), STDERR_FILENO);
  report_debug ("one");
  report_warning ("two");
  errno = ENOSPC;
  report_error ("%s: %m", "three\n");
  n = errno;
  fflush (stderr);
  dup2 (saved, STDERR_FILENO);
  close (saved);
  CHECK (n == ENOSPC);
  rewind (f);
  n = fread (text, 1, sizeof text - 1, f);
  text[n] = '\0';
  fclose (f);
  errno = ENOSPC;
  CHECK (strncmp (text, "warning: two\nthree?: ", 21) == 0);
  CHECK (strncmp (text + 21, strerror (ENOSPC), n - 22) == 0);
  CHECK (text[n - 1] == '\n');
}

static unsigned messages;
static char last_message[100];

static void
sink (enum report_level level, const char *message)
{
  CHECK (level == REPORT_ERROR);
  messages++;
  snprintf (last_message, sizeof last_message, "%s", message);
}

static void
test_limit (void)
{
  struct report_limit limit = REPORT_LIMIT_INIT;

  for (unsigned i = 0; i < 10; i++)
    report_limited (&limit, "message %u", i);
  CHECK (messages == 3 && strcmp (last_message, "message 2") == 0);

  now.tv_nsec = 999999999;      /* of the same second */
  report_limited (&limit, "late");
  CHECK (messages == 3);

  now.tv_sec++;
  CHECK (report_allowed (&limit));
  CHECK (messages == 4);
  CHECK (strcmp (last_message, "8 similar messages were left out") == 0);
  report_limited (&limit, "and %s", "another");
  CHECK (messages == 5 && strcmp (last_message, "and another") == 0);
  report_limited (&limit, "a third one");
  CHECK (messages == 6);
  report_limited (&limit, "too much");
  CHECK (messages == 6);
}

int
main (void)
{
  test_characters ();
  test_stderr ();
  report_set_sink (sink);
  test_limit ();
  return EXIT_SUCCESS;
}
