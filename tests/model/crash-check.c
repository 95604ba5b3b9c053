/* qcow2ext: is what a crash left sound?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash-check.h"
#include "image/image.h"

static bool
fail (struct crash_state *s, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

static bool
fail (struct crash_state *s, const char *fmt, ...)
{
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (s->why, sizeof s->why, fmt, ap);
  va_end (ap);
  return false;
}

static bool
write_file (const char *dir, const char *name, const struct memory_file *f)
{
  char path[256];
  uint64_t done = 0;
  int fd;

  snprintf (path, sizeof path, "%s/%s", dir, name);
  fd = open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  while (fd != -1 && done < f->size) {
    const ssize_t n = write (fd, f->bytes + done, f->size - done);

    if (n <= 0)
      break;
    done += n;
  }
  return fd != -1 && close (fd) == 0 && done == f->size;
}

#define NO_QEMU 127

/* Returns what qemu-img check exits with; NO_QEMU if it is not there. */
static int
qemu_check (const struct memory_file *file)
{
  static const char *const names[] = { "image", "data", "backing" };
  const char *tmp = getenv ("TMPDIR");
  char dir[200], path[256];
  int status = -1;
  pid_t pid;

  snprintf (dir, sizeof dir, "%s/qcow2ext-crash-XXXXXX", tmp ? tmp : "/tmp");
  if (mkdtemp (dir) == NULL)
    return NO_QEMU;
  for (unsigned i = 0; i < MEMORY_FILES; i++)
    if (!write_file (dir, names[i], &file[i]))
      goto out;

  pid = fork ();
  if (pid == 0) {
    const int null = open ("/dev/null", O_WRONLY);

    if (!getenv ("QCOW2EXT_TEST_VERBOSE"))
      dup2 (null, 2);
    dup2 (null, 1);
    if (chdir (dir) == 0)
      execlp ("qemu-img", "qemu-img", "check", "-f", "qcow2", "image", NULL);
    _exit (NO_QEMU);
  }
  if (pid > 0)
    waitpid (pid, &status, 0);

 out:
  for (unsigned i = 0; i < MEMORY_FILES; i++) {
    snprintf (path, sizeof path, "%s/%s", dir, names[i]);
    unlink (path);
  }
  rmdir (dir);
  return WIFEXITED (status) ? WEXITSTATUS (status) : 255;
}

static bool
check_sectors (struct crash_state *s)
{
  const struct world *w = s->w;
  const struct checker *c = &s->checker;
  char buf[128];

  for (uint64_t i = 0; i < w->sectors; i++) {
    const struct history *h = &w->sector[i];
    const size_t first = history_at (h, s->flushed);
    const uint8_t *p = c->guest + i * MEMORY_SECTOR;

    if (!history_allows (h, first, s->cut, p))
      return fail (s, "guest sector %" PRIu64 " is %s, but version %zu was "
                   "flushed", i, history_describe (h, p, buf), first);
    if (w->bitmaps)
      s->fate[i] = history_fate (h, p, first, s->cut);
    if (!world_raw_counts (w, c, i))
      continue;
    p = file_sector (&s->file[MEMORY_DATA], i);
    if (!history_allows (h, first, s->cut, p))
      return fail (s, "sector %" PRIu64 " of the raw file is %s, but version "
                   "%zu was flushed", i, history_describe (h, p, buf), first);
  }
  return true;
}

/* The engine must be able to go on with it. */
static bool
write_on_with (struct crash_state *s, const struct bitmap_copy *bitmaps)
{
  const struct image_spec *spec = s->w->spec;
  const unsigned leaks = s->checker.leaks;
  struct files files = {
    .file = s->file, .no_discard = spec->no_discard, .device = spec->device,
    .write = spec->write
  };
  struct image *image;
  uint8_t sector[MEMORY_SECTOR];
  char why[128];
  int r;

  memset (s->fate, UNTOUCHED, s->w->sectors);
  r = files_open (&files, true, 0, &image);
  if (r < 0)
    return fail (s, "it cannot be opened for writing: %s", strerror (-r));
  if (!image_is_writable (image)) {
    image_close (image);
    return fail (s, "it cannot be written to");
  }
  for (unsigned i = 0; i < 4 && r == 0; i++) {
    const uint64_t n = rng_below (&s->rng, s->w->sectors);

    make_pattern (sector, UINT32_MAX - i, n);
    r = image_write (image, sector, MEMORY_SECTOR, n * MEMORY_SECTOR);
    memcpy (s->guest + n * MEMORY_SECTOR, sector, MEMORY_SECTOR);
    s->fate[n] = CHANGED;
    if (i == 1 && r == 0)
      r = image_flush (image);
    if (i == 2 && r == 0) {
      const uint64_t z = rng_below (&s->rng, s->w->sectors);

      r = image_zero (image, MEMORY_SECTOR, z * MEMORY_SECTOR,
                      IMAGE_ZERO_UNMAP);
      memset (s->guest + z * MEMORY_SECTOR, 0, MEMORY_SECTOR);
      s->fate[z] = CHANGED;
    }
  }
  if (r == 0)
    r = image_settle (image, false);
  image_close (image);
  if (r < 0)
    return fail (s, "writing on fails: %s", strerror (-r));

  checker_run (&s->checker, &s->file[MEMORY_IMAGE], &s->file[MEMORY_DATA],
               &s->file[MEMORY_BACKING]);
  if (s->checker.errors)
    return fail (s, "after writing on: %s", s->checker.message);
  if (s->checker.leaks > leaks)
    return fail (s, "after writing on there are %u leaks, %u before",
                 s->checker.leaks, leaks);
  if (memcmp (s->checker.guest, s->guest, spec->size) != 0)
    return fail (s, "after writing on, the disk is not what it should be");
  if (s->checker.dirty)
    return fail (s, "after writing on, the image is marked dirty");
  if (!bitmaps_hold (&s->checker, bitmaps, s->fate, true, why))
    return fail (s, "after writing on, %s", why);
  return true;
}

static bool
write_on (struct crash_state *s)
{
  struct bitmap_copy *bitmaps = copy_bitmaps (&s->checker);
  const bool ok = write_on_with (s, bitmaps);

  free_bitmaps (bitmaps, s->checker.bitmaps);
  return ok;
}

bool
crash_state_is_sound (struct crash_state *s, uint64_t *by_qemu)
{
  struct world *w = s->w;
  struct checker *c = &s->checker;
  struct files files = { .file = s->file };
  struct image *image;
  char why[128];
  int r;

  checker_run (c, &s->file[MEMORY_IMAGE], &s->file[MEMORY_DATA],
               &s->file[MEMORY_BACKING]);
  if (c->errors)
    return fail (s, "%s", c->message);
  if (!check_sectors (s))
    return false;
  if (c->unknown_autoclear && memcmp (c->guest, w->initial, w->spec->size))
    return fail (s, "the disk has changed, but an unknown autoclear bit is "
                 "still there");
  if (!bitmaps_hold (c, w->bitmaps, s->fate, false, why))
    return fail (s, "%s", why);
  if (c->has_snapshot && memcmp (c->snapshot, w->initial, w->spec->size) != 0)
    return fail (s, "the snapshot has changed");

  if (by_qemu && !c->dirty && !w->spec->encrypted /* which wants a key */) {
    r = qemu_check (s->file);
    *by_qemu += r != NO_QEMU;
    if (r != 0 && r != 3 && r != NO_QEMU) /* 3: leaks */
      return fail (s, "qemu-img check finds errors (%d)", r);
  }

  r = files_open (&files, false, 0, &image);
  if (r < 0)
    return fail (s, "it cannot be opened: %s", strerror (-r));
  r = image_read (image, s->guest, w->spec->size, 0);
  image_close (image);
  if (r < 0)
    return fail (s, "it cannot be read: %s", strerror (-r));
  if (memcmp (c->guest, s->guest, w->spec->size) != 0)
    return fail (s, "the engine reads something else than the checker");
  return write_on (s);
}
