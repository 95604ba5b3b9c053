/* qcow2ext: parameters.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "config.h"
#include "encryption.h"
#include "store-file.h"

#define MIB (1024 * 1024)

struct config config = {
  .image_fd = -1,
  .l2_cache_size = 32 * MIB,
  .decoded_cache_size = 16 * MIB,
  .read_ahead_size = 16 * MIB,
  .lock = true,
};

/* Parses a cache's size.  Here and below, what nbdkit's functions say of a bad
 * value does not name the parameter.
 */
static int
parse_size (const char *key, const char *value, size_t *size)
{
  const int64_t r = nbdkit_parse_size (value);

  if (r == -1) {
    nbdkit_error ("%s=%s: it must be a size, such as 4M", key, value);
    return -1;
  }
  if ((uint64_t) r > SIZE_MAX / 4) {
    nbdkit_error ("%s: the size is out of range", key);
    return -1;
  }
  *size = r;
  return 1;
}

static int
parse_bool (const char *key, const char *value, bool *b)
{
  const int r = nbdkit_parse_bool (value);

  if (r == -1) {
    nbdkit_error ("%s=%s: it must be true or false", key, value);
    return -1;
  }
  *b = r;
  return 1;
}

static int
set_string (const char *key, char **where, char *string)
{
  if (string == NULL)           /* nbdkit has said why */
    return -1;
  if (*where) {
    nbdkit_error ("%s is given twice", key);
    free (string);
    return -1;
  }
  *where = string;
  return 1;
}

static char *
copy_string (const char *s)
{
  char *copy = strdup (s);

  if (copy == NULL)
    nbdkit_error ("strdup: %m");
  return copy;
}

/* Takes the string. */
static int
add_string (char ***list, size_t *nr, char *string)
{
  char **longer;

  if (string == NULL)           /* it was said why */
    return -1;
  longer = realloc (*list, (*nr + 1) * sizeof *longer);
  if (longer == NULL) {
    nbdkit_error ("realloc: %m");
    free (string);
    return -1;
  }
  *list = longer;
  longer[(*nr)++] = string;
  return 1;
}

static int
add_allow (const char *key, const char *value)
{
  struct stat st;
  char *dir;

  if (strcmp (value, "none") == 0) {
    config.allow_none = true;
    return 1;
  }
  dir = nbdkit_realpath (value);
  if (dir == NULL) {
    nbdkit_error ("%s=%s: it must be a directory, or none", key, value);
    return -1;
  }
  if (stat (dir, &st) == -1 || !S_ISDIR (st.st_mode)) {
    nbdkit_error ("%s=%s: not a directory", key, value);
    free (dir);
    return -1;
  }
  return add_string (&config.allow, &config.nr_allow, dir);
}

static int
set_exports (const char *key, const char *value)
{
  if (strcmp (value, "all") != 0 && strcmp (value, "disk") != 0) {
    nbdkit_error ("%s=%s: it must be disk or all", key, value);
    return -1;
  }
  config.all_exports = strcmp (value, "all") == 0;
  return 1;
}

static int
add_backing_format (const char *key, const char *value)
{
  if (strcmp (value, "raw") != 0 && strcmp (value, "qcow2") != 0
      && strcmp (value, "auto") != 0) {
    nbdkit_error ("%s=%s: the format must be raw or qcow2, or auto for what "
                  "the image says", key, value);
    return -1;
  }
  return add_string (&config.backing_formats, &config.nr_backing_formats,
                     copy_string (value));
}

static int
set_data_file (const char *key, const char *value)
{
  struct location l;

  if (location_parse (key, value, &l) == -1)
    return -1;
  config.data_is_nbd = l.is_nbd;
  return set_string (key, &config.data_file, l.name);
}

/* The layers of the chain, from the top downwards. */
static int
add_backing_file (const char *key, const char *value)
{
  struct location l = { .name = NULL };
  struct location *backing =
    realloc (config.backing, (config.nr_backing + 1) * sizeof *backing);

  if (backing == NULL) {
    nbdkit_error ("realloc: %m");
    return -1;
  }
  config.backing = backing;
  if (config.nr_backing > 0
      && strcmp (backing[config.nr_backing - 1].name, "none") == 0) {
    nbdkit_error ("%s=%s: nothing can follow %s=none", key, value, key);
    return -1;
  }
  if (strcmp (value, "none") == 0) {
    l.name = copy_string (value);
    if (l.name == NULL)
      return -1;
  }
  else if (location_parse (key, value, &l) == -1)
    return -1;
  backing[config.nr_backing++] = l;
  return 1;
}

/* In the forms that nbdkit has for passwords. */
static int
set_passphrase (const char *value)
{
  char *passphrase;

  if (nbdkit_read_password (value, &passphrase) == -1) {
    nbdkit_error ("qcow2ext-passphrase=: the pass phrase cannot be read");
    return -1;
  }
  return encryption_set_passphrase (passphrase) == -1 ? -1 : 1;
}

/* The file= of the plugin: where the image is, if it is a local file.  The
 * plugin itself may mean something else by it, so nothing here is an error.
 */
static int
note_file (const char *value)
{
  if (config.image_path) {
    config.several_files = true;
    return 0;
  }
  config.image_path = nbdkit_absolute_path (value);
  return config.image_path ? 0 : -1;
}

/* The path of the file behind a descriptor, or NULL: it may have none any
 * more, or one that does not lead there from here.
 */
static char *
path_of_fd (int fd)
{
  char link[64], path[PATH_MAX];
  struct stat st, there;
  struct file_id id, id_there;
  ssize_t n;

  snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
  n = readlink (link, path, sizeof path);
  if (n <= 0 || (size_t) n >= sizeof path)
    return NULL;
  path[n] = '\0';
  if (fstat (fd, &st) == -1 || stat (path, &there) == -1)
    return NULL;
  id = file_id_of (&st);
  id_there = file_id_of (&there);
  return file_id_equal (&id, &id_there) ? strdup (path) : NULL;
}

/* The fd= of the file plugin (since 1.34): we need the path, to find what the
 * image names and to have a descriptor of our own.  What is wrong with the
 * number itself, the plugin says.
 */
static int
note_fd (const char *value)
{
  struct stat st;
  char *end;
  const long fd = strtol (value, &end, 10);

  if (end == value || *end || fd < 0 || fd > INT_MAX
      || fstat (fd, &st) == -1
      || (!S_ISREG (st.st_mode) && !S_ISBLK (st.st_mode)))
    return 0;
  if (config.image_path) {
    config.several_files = true;
    return 0;
  }
  config.image_path = path_of_fd (fd);
  config.image_fd = fd;
  if (config.image_path == NULL)
    nbdkit_error ("warning: fd=%ld: the file has no path (has it been "
                  "deleted?), so it is treated as one that is not local: the "
                  "image cannot grow, and one with an external data file is "
                  "read-only", fd);
  return 0;
}

/* The dir= of the file plugin, whose files are exports by their names. */
static int
note_directory (const char *value)
{
  if (config.directory) {
    config.several_directories = true;
    return 0;
  }
  config.directory = nbdkit_absolute_path (value);
  return config.directory ? 0 : -1;
}

/* The file plugin's fadvise=, which says how its file will be used.  What it
 * does not know, it refuses itself.
 */
static int
note_advice (const char *value)
{
  if (strcmp (value, "random") == 0)
    config.advice = POSIX_FADV_RANDOM;
  else if (strcmp (value, "sequential") == 0)
    config.advice = POSIX_FADV_SEQUENTIAL;
  return 0;
}

static int
set_detect_zeroes (const char *key, const char *value)
{
  if (strcmp (value, "off") == 0)
    config.write.detect_zeroes = DETECT_OFF;
  else if (strcmp (value, "on") == 0)
    config.write.detect_zeroes = DETECT_ON;
  else if (strcmp (value, "unmap") == 0)
    config.write.detect_zeroes = DETECT_UNMAP;
  else {
    nbdkit_error ("%s=%s: it must be off, on or unmap", key, value);
    return -1;
  }
  return 1;
}

/* Does a layer below choose what it serves by the name of the export?  Ours are
 * shared by all clients, and are opened without a name: the nbd plugin would
 * end the server.
 */
static bool
chooses_by_name (const char *key, const char *value)
{
  return (strcmp (key, "dynamic-export") == 0
          && nbdkit_parse_bool (value) == 1)
    || (strcmp (key, "ext2file") == 0 && strcmp (value, "exportname") == 0);
}

/* Notes a parameter of the plugin below, which gets it as well. */
static int
note_parameter (const char *key, const char *value)
{
  if (chooses_by_name (key, value)) {
    nbdkit_error ("%s=%s: the name of the export that a client asks for is "
                  "not passed on to what is below qcow2ext; say there which "
                  "image is to be served", key, value);
    return -1;
  }
  if (strcmp (key, "file") == 0)
    return note_file (value);
  if (strcmp (key, "fd") == 0)
    return note_fd (value);
  if (strcmp (key, "fadvise") == 0)
    return note_advice (value);
  if (strcmp (key, "cache") == 0) { /* nbdkit's cache filter has it, too */
    config.cache_none = strcmp (value, "none") == 0;
    return 0;
  }
  if (strcmp (key, "dir") == 0)
    return note_directory (value);
  if (strcmp (key, "dirfd") == 0)
    config.dirfd = true;
  return 0;
}

int
config_parse (const char *key, const char *value)
{
  if (strncmp (key, "qcow2ext-", 9) != 0)
    return note_parameter (key, value);
  if (value[0] == '\0') {
    nbdkit_error ("%s: the value is empty", key);
    return -1;
  }
  if (strcmp (key, "qcow2ext-data-file") == 0)
    return set_data_file (key, value);
  if (strcmp (key, "qcow2ext-backing-file") == 0)
    return add_backing_file (key, value);
  if (strcmp (key, "qcow2ext-backing-format") == 0)
    return add_backing_format (key, value);
  if (strcmp (key, "qcow2ext-allow") == 0)
    return add_allow (key, value);
  if (strcmp (key, "qcow2ext-snapshot") == 0)
    return set_string (key, &config.snapshot, copy_string (value));
  if (strcmp (key, "qcow2ext-exports") == 0)
    return set_exports (key, value);
  if (strcmp (key, "qcow2ext-bitmap") == 0)
    return add_string (&config.bitmaps, &config.nr_bitmaps,
                       copy_string (value));
  if (strcmp (key, "qcow2ext-bitmap-chain") == 0)
    return parse_bool (key, value, &config.bitmap_chain);
  if (strcmp (key, "qcow2ext-passphrase") == 0)
    return set_passphrase (value);
  if (strcmp (key, "qcow2ext-check") == 0)
    return parse_bool (key, value, &config.check);
  if (strcmp (key, "qcow2ext-lock") == 0)
    return parse_bool (key, value, &config.lock);
  if (strcmp (key, "qcow2ext-trust-below") == 0)
    return parse_bool (key, value, &config.trust_below);
  if (strcmp (key, "qcow2ext-compress") == 0)
    return parse_bool (key, value, &config.write.compress);
  if (strcmp (key, "qcow2ext-detect-zeroes") == 0)
    return set_detect_zeroes (key, value);
  if (strcmp (key, "qcow2ext-direct") == 0)
    return parse_bool (key, value, &config.direct);
  if (strcmp (key, "qcow2ext-l2-cache-size") == 0)
    return parse_size (key, value, &config.l2_cache_size);
  if (strcmp (key, "qcow2ext-decoded-cache-size") == 0)
    return parse_size (key, value, &config.decoded_cache_size);
  if (strcmp (key, "qcow2ext-read-ahead-size") == 0)
    return parse_size (key, value, &config.read_ahead_size);

  nbdkit_error ("unknown parameter '%s' (nbdkit --help --filter=qcow2ext "
                "lists those that exist)", key);
  return -1;
}

void
config_free (void)
{
  encryption_unload ();
  free (config.image_path);
  free (config.directory);
  free (config.data_file);
  for (size_t i = 0; i < config.nr_backing; i++)
    free (config.backing[i].name);
  free (config.backing);
  for (size_t i = 0; i < config.nr_backing_formats; i++)
    free (config.backing_formats[i]);
  free (config.backing_formats);
  for (size_t i = 0; i < config.nr_allow; i++)
    free (config.allow[i]);
  free (config.allow);
  free (config.snapshot);
  for (size_t i = 0; i < config.nr_bitmaps; i++)
    free (config.bitmaps[i]);
  free (config.bitmaps);
}
