/* qcow2ext: compressed clusters, decoded.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_DECODED_CACHE_H
#define QCOW2_DECODED_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "map/mapping.h"

/* A bounded cache of decoded clusters, with the decoders' contexts, for any
 * number of images.  limit is in bytes; a cluster that is being decoded or
 * copied is held beyond it.  The maker of the cache has one reference to it,
 * each open image another; the last one that is dropped frees it.
 */
struct decoded_cache *decoded_cache_new (size_t limit);
struct decoded_cache *decoded_cache_ref (struct decoded_cache *cache);
void decoded_cache_unref (struct decoded_cache *cache);

/* The number (layer.h) for a layer whose image file is that store: that of the
 * store, or one that no other layer gets.
 */
uint64_t decoded_cache_content (const struct store *store);

/* Forgets what is of no use to anybody when a layer is closed. */
void decoded_cache_drop_layer (struct decoded_cache *cache,
                               const struct layer *layer);

/* Forgets what was decoded from a host range of a layer's image file, in
 * bytes.
 */
void decoded_cache_drop_range (struct decoded_cache *cache,
                               const struct layer *layer, uint64_t offset,
                               uint64_t length);

/* Is the cluster of a run there, or about to be? */
bool decoded_cache_has (struct layer *layer, const struct run *run);

/* What the image file has of the cluster of a run, from run->host on.  Bytes
 * behind the end of the file are not decoded: zeros in place of lost data can
 * be a valid stream of something else.
 */
struct compressed_input {
  const uint8_t *data;          /* NULL: nothing was read */
  size_t size;                  /* bytes */
};

static inline struct compressed_input
compressed_input_of (const struct layer *layer, const struct run *run,
                     const uint8_t *data)
{
  const uint64_t left = layer_file_size (layer) - run->host;
  const size_t size = run->compressed_size;

  return (struct compressed_input) { data, size < left ? size : left };
}

/* Reads run->length bytes at guest offset, where run (RUN_COMPRESSED) has
 * been looked up.  Input that is not there is read if it is needed.  Several
 * threads that want the same cluster decode it once.  No lock is held while
 * reading or decoding.  *ahead: the guest's clusters seem to be read in order,
 * so that it pays to decode the next one.  Returns 0 or -errno (-EIO:
 * reported).
 */
int decoded_cache_read (struct layer *layer, uint64_t offset,
                        const struct run *run, struct compressed_input input,
                        void *buf, bool *ahead);

/* Decodes the cluster of the run into the cache, and takes its size off the
 * budget (bytes), which is at first UINT64_MAX: a request may fill no more
 * than half of the cache.  Returns false if it is spent.
 */
bool decoded_cache_prefetch (struct layer *layer, const struct run *run,
                             uint64_t *budget);

#endif /* QCOW2_DECODED_CACHE_H */
