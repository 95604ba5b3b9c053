/* qcow2ext: encrypted images.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * To find the volume key takes seconds, so it is kept, together with the
 * header that it was found for: with these very bytes, it is the key.  (The
 * header has a digest of the key.)
 *
 *   none --first to ask--> searching --found--> kept, until unload
 *                              |
 *                              +---not found--> none
 *
 * While one thread searches, those that ask for the same header wait for it
 * and share what comes out; all others go on.
 *
 * Lock: "lock" guards the list and its entries' states.  It is never held
 * while a key is searched for, or for any I/O.  An entry's key does not change
 * once it is found.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/report.h"
#include "cipher.h"
#include "disk/luks-header.h"
#include "encryption.h"
#include "load-gcrypt.h"
#include "luks-key.h"
#include "secret.h"
#include "store-crypt.h"

struct volume {
  struct volume *next;
  uint8_t header[LUKS_HEADER_BYTES];
  uint8_t *key;                 /* a secret */
  bool searching;
  int error;                    /* what the search ended with; 0: found */
  unsigned users;               /* who look at it; the list is none */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t searched = PTHREAD_COND_INITIALIZER;
static struct volume *volumes;
static char *phrase;            /* a secret, or NULL */

int
encryption_set_passphrase (char *passphrase)
{
  const size_t n = strlen (passphrase);
  bool ok = false;

  if (phrase || n == 0)
    report_error ("qcow2ext-passphrase: the pass phrase is %s",
                  phrase ? "given twice" : "empty");
  else if (load_libgcrypt () == 0) {
    phrase = secret_alloc (n + 1);
    if (phrase)
      memcpy (phrase, passphrase, n);
    else
      report_error ("mmap: %m");
    ok = phrase != NULL;
  }
  explicit_bzero (passphrase, n);
  free (passphrase);
  return ok ? 0 : -1;
}

bool
encryption_has_passphrase (void)
{
  return phrase != NULL;
}

void
encryption_after_fork (void)
{
  if (phrase == NULL)
    return;
  secret_relock ();
  relock_libgcrypt ();
}

static void
volume_free (struct volume *v)
{
  secret_free (v->key);
  free (v);
}

void
encryption_unload (void)
{
  while (volumes) {
    struct volume *v = volumes;

    volumes = v->next;
    volume_free (v);
  }
  secret_free (phrase);
  phrase = NULL;
}

static struct volume *
volume_new (const uint8_t *header)
{
  struct volume *v = calloc (1, sizeof *v);

  if (v == NULL)
    return NULL;
  v->key = secret_alloc (LUKS_MAX_KEY_BYTES);
  if (v->key == NULL) {
    free (v);
    return NULL;
  }
  memcpy (v->header, header, sizeof v->header);
  v->searching = true;
  v->next = volumes;
  volumes = v;
  return v;
}

/* Finds the entry of a header, or makes one (*mine) whose key the caller has
 * to search for.  NULL: no memory.
 */
static struct volume *
volume_get (const uint8_t *header, bool *mine)
{
  struct volume *v;

  LOCK_FOR_SCOPE (&lock);
  *mine = false;
  for (v = volumes; v; v = v->next)
    if (memcmp (v->header, header, sizeof v->header) == 0)
      break;
  if (v == NULL) {
    v = volume_new (header);
    if (v == NULL)
      return NULL;
    *mine = true;
  }
  v->users++;
  while (v->searching && !*mine)
    pthread_cond_wait (&searched, &lock);
  return v;
}

/* The search has ended. */
static void
volume_searched (struct volume *v, int error)
{
  struct volume **p;

  LOCK_FOR_SCOPE (&lock);
  v->searching = false;
  v->error = error;
  if (error) {                  /* the next one to come searches again */
    for (p = &volumes; *p != v; p = &(*p)->next)
      ;
    *p = v->next;
  }
  pthread_cond_broadcast (&searched);
}

static void
volume_put (struct volume *v)
{
  LOCK_FOR_SCOPE (&lock);
  if (--v->users == 0 && v->error)
    volume_free (v);
}

/* Makes the cipher for an image whose header has been read. */
static int
open_cipher (struct store *file, uint64_t offset, const uint8_t *bytes,
             const struct luks_header *h, struct cipher **cipher)
{
  struct volume *v;
  bool mine;
  int r;

  v = volume_get (bytes, &mine);
  if (v == NULL)
    return -ENOMEM;
  if (mine)
    volume_searched (v, luks_find_key (file, offset, h, phrase, v->key));
  r = v->error;
  if (r == 0) {
    *cipher = cipher_new (h, v->key);
    if (*cipher == NULL)
      r = -EIO;
  }
  volume_put (v);
  return r;
}

int
encryption_open (void *opaque, struct store *file, uint64_t offset,
                 uint64_t length, struct store *clusters,
                 struct store **result)
{
  uint8_t bytes[LUKS_HEADER_BYTES];
  struct cipher *cipher = NULL;
  struct luks_header h;
  uint64_t size;
  int r;

  (void) opaque;
  if ((r = store_get_size (file, &size)) < 0
      || (r = store_pread (file, bytes, sizeof bytes, offset)) < 0) {
    report_error ("%s: the LUKS header cannot be read: %s", file->name,
                  strerror (-r));
    return r;
  }
  size = offset < size ? size - offset : 0;
  r = luks_header_parse (file->name, bytes, length < size ? length : size, &h);
  if (r < 0)
    return r;
  if (phrase == NULL) {
    report_error ("%s: the image is encrypted; its pass phrase has to be "
                  "given with qcow2ext-passphrase=", file->name);
    return -EACCES;
  }
  r = open_cipher (file, offset, bytes, &h, &cipher);
  if (r < 0)
    return r;
  clusters = store_crypt_new (clusters, cipher);
  if (clusters == NULL)
    return -ENOMEM;
  *result = clusters;
  return 0;
}
