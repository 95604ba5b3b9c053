/* qcow2ext: do the parameters go together?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <stdlib.h>
#include <string.h>

#include <nbdkit-filter.h>

#include "config.h"

/* Files are seen to be the same when they are opened; URIs are compared. */
static int
check_uris (void)
{
  for (size_t i = 0; i < config.nr_backing; i++) {
    const char *uri = config.backing[i].name;

    if (!config.backing[i].is_nbd)
      continue;
    for (size_t j = 0; j < i; j++)
      if (strcmp (config.backing[j].name, uri) == 0) {
        nbdkit_error ("qcow2ext-backing-file=%s is given twice", uri);
        return -1;
      }
    if (config.data_file && strcmp (config.data_file, uri) == 0) {
      nbdkit_error ("qcow2ext-backing-file=%s is the external data file "
                    "already", uri);
      return -1;
    }
  }
  return 0;
}

/* What is about one image cannot be said of all in a directory. */
static int
check_directory (void)
{
  const struct { const char *key; bool is_given; } of_one[] = {
    { "qcow2ext-data-file", config.data_file },
    { "qcow2ext-backing-file", config.nr_backing },
    { "qcow2ext-backing-format", config.nr_backing_formats },
    { "qcow2ext-snapshot", config.snapshot },
    { "qcow2ext-bitmap", config.nr_bitmaps },
    { "qcow2ext-bitmap-chain", config.bitmap_chain },
    { "qcow2ext-trust-below", config.trust_below },
  };

  if (config.dirfd) {
    nbdkit_error ("dirfd= is not supported: name the directory, with dir=");
    return -1;
  }
  if (config.directory == NULL)
    return 0;
  if (config.image_path || config.image_fd != -1
      || config.several_directories) {
    nbdkit_error ("dir= can be given once, and excludes file= and fd=");
    return -1;
  }
  for (size_t i = 0; i < sizeof of_one / sizeof of_one[0]; i++)
    if (of_one[i].is_given) {
      nbdkit_error ("%s= is about one image and excludes dir=; serve that "
                    "image with file=", of_one[i].key);
      return -1;
    }
  return 0;
}

int
config_check (void)
{
  if (check_uris () == -1 || check_directory () == -1)
    return -1;
  if (config.allow_none && config.nr_allow) {
    nbdkit_error ("qcow2ext-allow=none excludes other qcow2ext-allow=");
    return -1;
  }
  if (config.all_exports && (config.snapshot || config.nr_bitmaps)) {
    nbdkit_error ("qcow2ext-exports=all and %s exclude each other",
                  config.snapshot ? "qcow2ext-snapshot=" : "qcow2ext-bitmap=");
    return -1;
  }
  if (config.bitmap_chain && !config.nr_bitmaps) {
    nbdkit_error ("qcow2ext-bitmap-chain= needs qcow2ext-bitmap=");
    return -1;
  }
  if (config.nr_bitmaps && config.snapshot) {
    nbdkit_error ("qcow2ext-bitmap= is about the live disk and excludes "
                  "qcow2ext-snapshot=");
    return -1;
  }
  if (config.several_files) {
    free (config.image_path);
    config.image_path = NULL;
  }
  if (config.direct && config.image_path == NULL && !config.directory) {
    nbdkit_error ("qcow2ext-direct=true: the image must be one local file, "
                  "given with file= or fd=");
    return -1;
  }
  if (config.cache_none && !config.direct
      && (config.image_path || config.directory))
    nbdkit_error ("warning: cache=none does not keep the image and its data "
                  "file out of the page cache; qcow2ext-direct=true does");
  return 0;
}
