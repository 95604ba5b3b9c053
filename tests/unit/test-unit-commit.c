/* qcow2ext: what a commit writes, and in which order.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Of a batch each stage is written as it was put together, nothing is left
 * out, and what comes after a failure is not written.
 */

#include "build-config.h"

#include <errno.h>
#include <string.h>

#include "check.h"
#include "base/report.h"
#include "commit/batch.h"
#include "store-memory.h"

static unsigned messages;

static void
count_message (enum report_level level, const char *message)
{
  (void) message;
  messages += level == REPORT_ERROR;
}

/* --- batches --- */

/* Adds a text; its NUL is not written. */
static void
add (struct batch *b, enum batch_stage stage, uint64_t offset,
     const char *text)
{
  void *data;

  CHECK (batch_add (b, stage, offset, strlen (text), &data) == 0);
  memcpy (data, text, strlen (text));
}

/* Writes a stage to an empty file, and compares. */
static void
check_written (const struct batch *b, enum batch_stage stage,
               const char *wanted)
{
  struct report_limit limit = REPORT_LIMIT_INIT;
  struct memory_file f = { 0 };
  struct store *s = store_memory_new (&f, NULL, MEMORY_IMAGE, false);

  CHECK (batch_write (b, stage, s, &limit) == 0);
  CHECK (f.size == strlen (wanted));
  CHECK (f.size == 0 || memcmp (f.bytes, wanted, f.size) == 0);
  store_close (s);
  memory_file_free (&f);
}

/* All that is moved comes behind what is there, whichever stage it is of. */
static void
test_move (void)
{
  struct batch to, from;

  batch_init (&to);
  batch_init (&from);
  add (&to, BATCH_NEW, 0, "new one");
  add (&to, BATCH_POINTERS, 0, "a pointer");
  add (&from, BATCH_NEW, 4, "two");
  add (&from, BATCH_NEW, 7, "!");
  add (&from, BATCH_POINTERS, 2, "changed");
  batch_move (&to, &from);
  CHECK (to.bytes == 7 + 9 + 3 + 1 + 7 && from.bytes == 0);
  CHECK (batch_is_empty (&from, BATCH_NEW));
  CHECK (batch_is_empty (&from, BATCH_POINTERS));
  check_written (&to, BATCH_NEW, "new two!");
  check_written (&to, BATCH_POINTERS, "a changed");

  /* Nothing, and then something again. */
  batch_move (&to, &from);
  add (&from, BATCH_NEW, 8, "!");
  add (&to, BATCH_NEW, 7, "?");
  batch_move (&to, &from);
  check_written (&to, BATCH_NEW, "new two?!");
  batch_free (&to);
  CHECK (batch_is_empty (&to, BATCH_NEW) && to.bytes == 0);
  CHECK (batch_is_empty (&to, BATCH_POINTERS));
  add (&to, BATCH_NEW, 0, "again");
  check_written (&to, BATCH_NEW, "again");
  batch_free (&to);
}

static void
test_failed_write (void)
{
  struct report_limit limit = REPORT_LIMIT_INIT;
  struct memory_file f = { 0 };
  struct memory_log log;
  struct store *s;
  struct batch b;

  memory_log_init (&log);
  log.fault = (struct memory_fault) {
    .kind = MEMORY_WRITE, .file = -1, .nth = 2, .error = ENOSPC,
  };
  s = store_memory_new (&f, &log, MEMORY_IMAGE, false);
  batch_init (&b);
  add (&b, BATCH_NEW, 0, "first");
  add (&b, BATCH_NEW, 5, "second");
  add (&b, BATCH_NEW, 11, "third");
  messages = 0;
  memory_in_engine = true;
  CHECK (batch_write (&b, BATCH_NEW, s, &limit) == -ENOSPC);
  memory_in_engine = false;
  CHECK (f.size == 5 && messages == 1);
  batch_free (&b);
  store_close (s);
  memory_log_clear (&log);
  memory_file_free (&f);
}

int
main (void)
{
  report_set_sink (count_message);
  test_move ();
  test_failed_write ();
  return EXIT_SUCCESS;
}
