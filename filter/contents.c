/* qcow2ext: which open files hold the same, although opened more than once.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Overlays of one base each open that base.  What is decoded of it once serves
 * all of them (data/decoded-cache.c), if it is the same file and nothing has
 * changed it in between.  The file's times tell, where they can be relied on:
 *
 * - It is a regular file of a local file system.  Others may answer from what
 *   they remember, and a device has no times of its contents.
 * - Its last change was some time ago.  Two changes within a tick of the
 *   kernel's clock can leave the same time.
 *
 * Nothing may write to a file while it is a layer; a program that does so all
 * the same changes the times, and with that the number for those who open it
 * afterwards.
 *
 * The last few files have numbers.  To forget one costs its next user what
 * others have decoded, and nothing else.
 */

#include "build-config.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "base/cleanup.h"
#include "contents.h"
#include "file-id.h"
#include "file-system.h"

#define KNOWN 64
#define QUIET_SECONDS 2

struct content {
  uint64_t number;              /* 0: none */
  struct file_id id;
  off_t size;
  struct timespec modified, changed;
};

static pthread_mutex_t contents_lock = PTHREAD_MUTEX_INITIALIZER;
static struct content known[KNOWN];
static uint64_t last_number;

static bool
same_time (const struct timespec *a, const struct timespec *b)
{
  return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool
same_content (const struct content *a, const struct content *b)
{
  return file_id_equal (&a->id, &b->id) && a->size == b->size
    && same_time (&a->modified, &b->modified)
    && same_time (&a->changed, &b->changed);
}

static bool
tells_changes (int fd, const struct stat *st)
{
  struct timespec now;

  clock_gettime (CLOCK_REALTIME, &now);
  return S_ISREG (st->st_mode) && file_system_of (fd).keeps_times
    && st->st_mtim.tv_sec < now.tv_sec - QUIET_SECONDS
    && st->st_ctim.tv_sec < now.tv_sec - QUIET_SECONDS;
}

uint64_t
contents_number (int fd, const struct stat *st)
{
  struct content c = {
    .id = file_id_of (st), .size = st->st_size,
    .modified = st->st_mtim, .changed = st->st_ctim,
  };

  if (!tells_changes (fd, st))
    return 0;
  LOCK_FOR_SCOPE (&contents_lock);
  for (size_t i = 0; i < KNOWN; i++)
    if (known[i].number && same_content (&known[i], &c))
      return known[i].number;
  c.number = ++last_number;
  known[c.number % KNOWN] = c;
  return c.number;
}
