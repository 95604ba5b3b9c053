/* qcow2ext: compressed clusters, decoded.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A decoded cluster is shared by all threads through a small cache, so that
 * reading it in small pieces decodes it once.  All images of a server share the
 * cache; what belongs together in it has the same content (layer.h), so that
 * overlays of one base decode that once:
 *
 *   absent --first reader--> LOADING --decoded--> READY --evicted--> absent
 *                               |
 *                               +--unsound--> FAILED --last user--> absent
 *
 * Invariants: an entry in the hash is LOADING or READY; while users > 0 it is
 * not freed; data is written only by the one that made the entry, before
 * READY.  One mutex guards everything here; it is held neither while reading
 * nor while decoding nor while copying out.
 *
 * A guest that reads a cluster piece by piece will want the next one: the second
 * request for a cluster that finds a quarter of it read decodes the next one,
 * while others go on with this one.
 *
 * A cluster that is read as a whole goes past the cache, so that copying a disk
 * leaves it alone.  The second to read such a cluster not long after puts it
 * there: clients that read the same image come in numbers.
 */

#include "build-config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/cleanup.h"
#include "base/random-key.h"
#include "base/report.h"
#include "data/decoded-cache.h"
#include "data/decoder-pool.h"
#include "data/decoder.h"

#define BUCKETS 1024

enum decoded_state { LOADING, READY, FAILED };

struct decoded {
  uint64_t content;             /* the key, with the next two */
  uint64_t host;
  uint32_t compressed_size;
  enum decoded_state state;
  int error;                    /* of FAILED */
  unsigned users;
  bool hashed;
  bool ahead;                   /* the next one was asked for */
  size_t taken;                 /* bytes that were read of it */
  unsigned cluster_bits;
  struct decoded *hash_next;
  struct decoded *newer, *older; /* the list of use, while hashed */
  uint8_t data[];
};

struct decoded_cache {
  atomic_uint references;
  pthread_mutex_t lock;
  pthread_cond_t loaded;
  uint64_t key;                 /* of the hash, odd; no image can know it */
  size_t limit, bytes, count;
  struct decoded *newest, *oldest;
  struct decoder_pool decoders;
  struct decoded *bucket[BUCKETS];
  atomic_uint_least64_t seen[BUCKETS]; /* clusters that were read as a whole */
};

/* Those of stores are odd. */
uint64_t
decoded_cache_content (const struct store *store)
{
  static _Atomic uint64_t last;

  return store->content ? store->content * 2 + 1
                        : atomic_fetch_add (&last, 2) + 2;
}

struct decoded_cache *
decoded_cache_new (size_t limit)
{
  struct decoded_cache *cache = calloc (1, sizeof *cache);

  if (cache == NULL)
    return NULL;
  pthread_mutex_init (&cache->lock, NULL);
  pthread_cond_init (&cache->loaded, NULL);
  decoder_pool_init (&cache->decoders);
  cache->key = random_key (cache) | 1;
  cache->limit = limit;
  atomic_init (&cache->references, 1);
  return cache;
}

static uint64_t
hash (const struct decoded_cache *cache, uint64_t content, uint64_t number)
{
  return keyed_hash (cache->key, keyed_hash (cache->key, content) ^ number);
}

/* All that begins in one host cluster is in one bucket, so that it can be found
 * when that cluster is let go of.
 */
static struct decoded **
bucket_of (struct decoded_cache *cache, uint64_t content, uint64_t host,
           unsigned cluster_bits)
{
  return &cache->bucket[hash (cache, content, host >> cluster_bits) >> 54];
}
static_assert (BUCKETS == 1 << (64 - 54), "bucket_of takes the top bits");

static size_t
size_of (const struct decoded *d)
{
  return (size_t) 1 << d->cluster_bits;
}

static void
unlink_use (struct decoded_cache *cache, struct decoded *d)
{
  *(d->newer ? &d->newer->older : &cache->newest) = d->older;
  *(d->older ? &d->older->newer : &cache->oldest) = d->newer;
}

static void
link_newest (struct decoded_cache *cache, struct decoded *d)
{
  d->newer = NULL;
  d->older = cache->newest;
  *(d->older ? &d->older->newer : &cache->oldest) = d;
  cache->newest = d;
}

/* Takes the entry out of the hash; frees it if it has no user. */
static void
forget (struct decoded_cache *cache, struct decoded *d)
{
  struct decoded **p =
    bucket_of (cache, d->content, d->host, d->cluster_bits);

  while (*p != d)
    p = &(*p)->hash_next;
  *p = d->hash_next;
  unlink_use (cache, d);
  cache->bytes -= size_of (d);
  cache->count--;
  d->hashed = false;
  if (d->users == 0)
    free (d);
}

/* Ends the use of an entry. */
static void
release (struct decoded *d)
{
  if (--d->users == 0 && !d->hashed)
    free (d);
}

static bool
begins_in (const struct decoded *d, const struct layer *layer,
           uint64_t offset, uint64_t length)
{
  return d->content == layer->content && d->host >= offset
    && d->host - offset < length;
}

void
decoded_cache_drop_layer (struct decoded_cache *cache,
                          const struct layer *layer)
{
  if (layer->file->content == 0)
    decoded_cache_drop_range (cache, layer, 0, UINT64_MAX);
}

/* Takes time by what is cached or by the length of the range, whichever is
 * less: ranges are let go of all the time where nothing is compressed.
 */
void
decoded_cache_drop_range (struct decoded_cache *cache,
                          const struct layer *layer, uint64_t offset,
                          uint64_t length)
{
  const uint64_t size = layer_cluster_size (layer);
  const uint64_t end = offset + length;
  struct decoded *d, *next;

  LOCK_FOR_SCOPE (&cache->lock);
  if (length / size >= cache->count) {
    for (d = cache->newest; d; d = next) {
      next = d->older;
      if (begins_in (d, layer, offset, length))
        forget (cache, d);
    }
    return;
  }
  for (uint64_t c = round_down (offset, size); c < end; c += size)
    for (d = *bucket_of (cache, layer->content, c, layer->geo.cluster_bits); d;
         d = next) {
      next = d->hash_next;
      if (begins_in (d, layer, offset, length))
        forget (cache, d);
    }
}

struct decoded_cache *
decoded_cache_ref (struct decoded_cache *cache)
{
  atomic_fetch_add (&cache->references, 1);
  return cache;
}

void
decoded_cache_unref (struct decoded_cache *cache)
{
  if (cache == NULL || atomic_fetch_sub (&cache->references, 1) > 1)
    return;
  while (cache->newest)
    forget (cache, cache->newest);
  decoder_pool_destroy (&cache->decoders);
  pthread_cond_destroy (&cache->loaded);
  pthread_mutex_destroy (&cache->lock);
  free (cache);
}

/* Reads what the image file has of a run's cluster into a workspace.  Sets
 * *input to that, and returns 0 or -errno.
 */
static int
read_input (struct layer *layer, const struct run *run, struct workspace *w,
            struct compressed_input *input)
{
  *input = compressed_input_of (layer, run, w->input);
  return w->input ? store_pread (layer->file, w->input, input->size, run->host)
                  : -ENOMEM;
}

/* Decodes the cluster of a run into out; reads it, if there is no input. */
static int
decode (struct layer *layer, const struct run *run,
        struct compressed_input input, void *out)
{
  struct decoder_pool *pool = &layer->decoded->decoders;
  struct workspace *w =
    decoder_pool_borrow (pool, input.data ? 0 : run->compressed_size);
  int r = 0;

  if (w == NULL)
    return -ENOMEM;
  if (input.data == NULL)
    r = read_input (layer, run, w, &input);
  if (r == 0) {
    r = decoder_run (w->decoder, layer->header.compression_type, input.data,
                     input.size, out, layer_cluster_size (layer));
    if (r == -EIO)
      report_limited (&layer->limit,
                      "%s: the compressed cluster at offset 0x%" PRIx64
                      " cannot be decoded: its data is damaged",
                      layer->file->name, run->host);
  }
  decoder_pool_return (pool, w);
  return r;
}

/* The entry of a run's cluster; NULL: there is none. */
static struct decoded *
find (struct layer *layer, const struct run *run)
{
  struct decoded *d =
    *bucket_of (layer->decoded, layer->content, run->host,
                layer->geo.cluster_bits);

  while (d && !(d->host == run->host && d->content == layer->content
                && d->compressed_size == run->compressed_size))
    d = d->hash_next;
  return d;
}

/* Becomes a user of an entry that exists, when it is no longer LOADING.
 * Returns 0, or -errno if it FAILED, and then is no user.
 */
static int
share (struct decoded_cache *cache, struct decoded *d)
{
  int error;

  d->users++;
  unlink_use (cache, d);
  link_newest (cache, d);
  while (d->state == LOADING)
    pthread_cond_wait (&cache->loaded, &cache->lock);
  error = d->state == FAILED ? d->error : 0;
  if (error < 0)
    release (d);
  return error;
}

/* Puts a new entry into the hash, LOADING, with the caller as its user. */
static void
insert (struct layer *layer, const struct run *run, struct decoded *d)
{
  struct decoded_cache *cache = layer->decoded;
  const unsigned bits = layer->geo.cluster_bits;
  struct decoded **bucket =
    bucket_of (cache, layer->content, run->host, bits);

  memset (d, 0, sizeof *d);
  d->content = layer->content;
  d->host = run->host;
  d->compressed_size = run->compressed_size;
  d->state = LOADING;
  d->users = 1;
  d->cluster_bits = bits;
  d->hashed = true;
  d->hash_next = *bucket;
  *bucket = d;
  link_newest (cache, d);
  cache->bytes += size_of (d);
  cache->count++;
  /* Entries in use stay in memory until their users are done, wherever the
   * limit is: there are at most as many as threads.
   */
  while (cache->bytes > cache->limit && cache->oldest != d)
    forget (cache, cache->oldest);
}

/* Decodes what insert has announced.  If that fails, the caller is no user. */
static int
load (struct layer *layer, const struct run *run,
      struct compressed_input input, struct decoded *d)
{
  struct decoded_cache *cache = layer->decoded;
  const int r = decode (layer, run, input, d->data);

  LOCK_FOR_SCOPE (&cache->lock);
  d->state = r < 0 ? FAILED : READY;
  d->error = r;
  pthread_cond_broadcast (&cache->loaded);
  if (d->hashed && (r < 0 || cache->bytes > cache->limit))
    forget (cache, d);
  if (r < 0)
    release (d);
  return r;
}

/* Finds the decoded cluster of a run, or makes it.  On success the caller is
 * a user of *result, and releases it.
 */
static int
acquire (struct layer *layer, const struct run *run,
         struct compressed_input input, struct decoded **result)
{
  struct decoded_cache *cache = layer->decoded;
  struct decoded *spare = NULL, *d;
  int r;

  pthread_mutex_lock (&cache->lock);
  d = find (layer, run);
  if (d == NULL) {
    pthread_mutex_unlock (&cache->lock);
    spare = malloc (sizeof *spare + layer_cluster_size (layer));
    if (spare == NULL)
      return -ENOMEM;
    pthread_mutex_lock (&cache->lock);
    d = find (layer, run);
  }
  if (d) {
    r = share (cache, d);
    pthread_mutex_unlock (&cache->lock);
    free (spare);
  }
  else {
    d = spare;
    insert (layer, run, d);
    pthread_mutex_unlock (&cache->lock);
    r = load (layer, run, input, d);
  }
  *result = d;
  return r;
}

/* Ends the use of an entry of which so many bytes were read.  Returns whether
 * to go ahead with the next one.
 */
static bool
release_read (struct decoded_cache *cache, struct decoded *d, size_t taken)
{
  bool ahead;

  LOCK_FOR_SCOPE (&cache->lock);
  ahead = !d->ahead && d->taken > 0 && d->taken + taken >= size_of (d) / 4
    && size_of (d) <= cache->limit / 4;
  d->ahead |= ahead;
  d->taken += taken;
  release (d);
  return ahead;
}

/* Was the cluster read as a whole not long ago?  If not, notes that it is. */
static bool
was_read_before (struct layer *layer, const struct run *run)
{
  struct decoded_cache *cache = layer->decoded;
  const uint64_t h = hash (cache, layer->content, run->host);
  atomic_uint_least64_t *seen = &cache->seen[h >> 54];

  if (atomic_load_explicit (seen, memory_order_relaxed) == h)
    return true;
  atomic_store_explicit (seen, h, memory_order_relaxed);
  return false;
}

bool
decoded_cache_has (struct layer *layer, const struct run *run)
{
  LOCK_FOR_SCOPE (&layer->decoded->lock);
  return find (layer, run) != NULL;
}

int
decoded_cache_read (struct layer *layer, uint64_t offset,
                    const struct run *run, struct compressed_input input,
                    void *buf, bool *ahead)
{
  const size_t size = layer_cluster_size (layer);
  struct decoded *d;
  int r;

  *ahead = false;
  /* A guest that reads a whole cluster will hardly come back for it, unless
   * it is one of many.
   */
  if (run->length == size && !decoded_cache_has (layer, run)
      && !was_read_before (layer, run))
    return decode (layer, run, input, buf);

  r = acquire (layer, run, input, &d);
  if (r < 0)
    return r;
  memcpy (buf, d->data + (offset & (size - 1)), run->length);
  *ahead = release_read (layer->decoded, d, run->length);
  return 0;
}

bool
decoded_cache_prefetch (struct layer *layer, const struct run *run,
                        uint64_t *budget)
{
  static const struct compressed_input no_input = { NULL, 0 };
  struct decoded *d;

  if (*budget > layer->decoded->limit / 2)
    *budget = layer->decoded->limit / 2;
  if (layer_cluster_size (layer) > *budget)
    return false;
  *budget -= layer_cluster_size (layer);
  if (acquire (layer, run, no_input, &d) == 0)
    release_read (layer->decoded, d, 0);
  return true;
}
