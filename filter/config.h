/* qcow2ext: parameters.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_CONFIG_H
#define QCOW2EXT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "location.h"
#include "data/write-options.h"

struct decoded_cache;

/* What the command line said.  Constant after config_complete. */
struct config {
  char *image_path;             /* the plugin's file=, absolute, or the path
                                   of its fd=; or NULL */
  int image_fd;                 /* the plugin's fd=, or -1 */
  bool several_files;           /* file= came more than once: a plugin such
                                   as split, whose disk is not one file */
  char *directory;              /* the plugin's dir=, absolute, or NULL: its
                                   images are served, and none by itself */
  bool several_directories;     /* dir= came more than once */
  bool dirfd;                   /* dirfd= was seen */

  char *data_file;              /* absolute, or NULL */
  bool data_is_nbd;             /* data_file is a URI */
  struct location *backing;     /* of the layers from the top downwards; the
                                   last one may be "none" */
  size_t nr_backing;
  char **backing_formats;       /* likewise: "raw", "qcow2", "auto" */
  size_t nr_backing_formats;
  char **allow;                 /* resolved directories */
  size_t nr_allow;
  bool allow_none;
  char *snapshot;               /* ID or name, or NULL */
  bool all_exports;             /* snapshots and bitmaps are exports, too */
  size_t l2_cache_size;         /* bytes */
  size_t decoded_cache_size;    /* bytes */
  struct decoded_cache *decoded; /* of that size, for all images */
  size_t read_ahead_size;       /* bytes, for each store that is far away */
  char **bitmaps;               /* names */
  size_t nr_bitmaps;
  bool bitmap_chain;            /* those of lower layers, too */
  bool check;                   /* check the image when it is opened */
  bool lock;                    /* lock the image and its data file */
  bool trust_below;             /* write a pair without the proof */
  struct write_options write;   /* what becomes of what is written */
  struct crew *crew;            /* as many threads as there are processors */
  struct crew *waiters;         /* threads that wait for what is far away */
  bool direct;                  /* past the page cache */
  int advice;                   /* the file plugin's fadvise=, as
                                   posix_fadvise takes it */
  bool cache_none;              /* the file plugin's cache=none was seen */

  bool serialize;               /* the layers below take one request at a
                                   time; known when the server is ready */
};
extern struct config config;

/* Takes one key=value.  Returns 1 if it was for us and valid, 0 if it is for
 * someone below (though we may have noted it), -1 (reported) if it is bad.
 */
int config_parse (const char *key, const char *value);

/* Checks what only the whole command line tells.  0, or -1 (reported). */
int config_check (void);
void config_free (void);

#define CONFIG_HELP                                                     \
  "qcow2ext-data-file=<FILE>|<URI>   External data file, or an NBD server\n" \
  "                                  that has it, whatever the image says.\n" \
  "qcow2ext-backing-file=<FILE>|<URI>|none   Backing file, whatever the\n" \
  "                                  image says; again for the next layers.\n" \
  "qcow2ext-backing-format=raw|qcow2|auto    Its format; likewise.\n"   \
  "qcow2ext-allow=<DIR>|none         Where files that an image names may\n" \
  "                                  be (repeatable; default: the image's\n" \
  "                                  own directory).\n"                 \
  "qcow2ext-snapshot=<ID>|<NAME>     Serve an internal snapshot.\n"     \
  "qcow2ext-exports=disk|all         What is an export: the disk, or also each\n" \
  "                                  snapshot and bitmap (default disk).\n" \
  "qcow2ext-bitmap=<NAME>            Show a dirty bitmap as extents, read-only:\n" \
  "                                  what changed is data, the rest holes\n" \
  "                                  (repeatable: what changed in any of them).\n" \
  "qcow2ext-bitmap-chain=<BOOL>      With those of that name in the backing\n" \
  "                                  files (default false).\n"         \
  "qcow2ext-check=<BOOL>             Check the image when it is opened, and do\n" \
  "                                  not write to it if it has errors.\n" \
  "qcow2ext-passphrase=<PASSWORD>    Pass phrase of an encrypted image, or\n" \
  "                                  where it is: +FILE, -FD or -.\n"  \
  "qcow2ext-lock=<BOOL>              Lock the image against other users\n" \
  "                                  (default true).\n"                \
  "qcow2ext-trust-below=<BOOL>       Write an image with external data file\n" \
  "                                  through filters below (default false).\n" \
  "qcow2ext-compress=<BOOL>          Compress the clusters that are written as a\n" \
  "                                  whole (default false).\n" \
  "qcow2ext-detect-zeroes=off|on|unmap Zero clusters where zeros are written,\n" \
  "                                  and give their space back (default off).\n" \
  "qcow2ext-direct=<BOOL>            Read and write the image and its data file\n" \
  "                                  past the page cache (default false).\n" \
  "qcow2ext-l2-cache-size=<SIZE>     Memory for L2 tables (default 32M).\n" \
  "qcow2ext-decoded-cache-size=<SIZE> Memory for decompressed clusters\n" \
  "                                  (default 16M).\n"                \
  "qcow2ext-read-ahead-size=<SIZE>   Memory for reading ahead of clients where\n" \
  "                                  an image is far away (default 16M)."

#endif /* QCOW2EXT_CONFIG_H */
