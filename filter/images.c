/* qcow2ext: the images that this server serves.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Without dir= there is one, for as long as the server runs.  Images of a
 * directory are known by their names, from the first client on.  Those that are
 * not open any more are kept, up to a number, so that what was said of them is
 * not said again, and their page cache is not dropped each time.
 *
 * Lock: images_lock guards the list and the counts of users.  The lock of
 * claims is taken under it, no other one, and no I/O is done.
 */

#include "build-config.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "claims.h"
#include "config.h"
#include "images.h"

/* So many images that are not open are remembered. */
#define MAX_KEPT 4096

static pthread_mutex_t images_lock = PTHREAD_MUTEX_INITIALIZER;
static struct served_image *images;
static size_t nr_images;

static struct served_image the_one = {
  .lock = PTHREAD_MUTEX_INITIALIZER,
  .image_lock.fd = -1,
  .data_lock.fd = -1,
};

void
images_start (void)
{
  the_one.path = config.image_path;
}

struct served_image *
images_the_one (void)
{
  return config.directory ? NULL : &the_one;
}

static void
image_free (struct served_image *served)
{
  pthread_mutex_destroy (&served->lock);
  free ((char *) served->path);
  free (served->name);
  free (served);
}

static struct served_image *
image_new (const char *name)
{
  struct served_image *served = calloc (1, sizeof *served);
  char *path;

  if (served == NULL)
    return NULL;
  pthread_mutex_init (&served->lock, NULL);
  served->image_lock.fd = served->data_lock.fd = -1;
  served->name = strdup (name);
  if (asprintf (&path, "%s/%s", config.directory, name) != -1)
    served->path = path;
  if (served->name && served->path)
    return served;
  image_free (served);
  return NULL;
}

struct served_image *
images_get (const char *name)
{
  struct served_image *served;

  LOCK_FOR_SCOPE (&images_lock);
  for (served = images; served; served = served->next)
    if (strcmp (served->name, name) == 0)
      break;
  if (served == NULL) {
    served = image_new (name);
    if (served == NULL) {
      nbdkit_error ("%s: malloc: %m", name);
      return NULL;
    }
    served->next = images;
    images = served;
    nr_images++;
  }
  served->users++;
  return served;
}

/* Under the lock.  An image has a claim while a session of it is open, which
 * it may be for want of space although nobody uses it.
 */
static bool
is_worth_keeping (const struct served_image *served)
{
  return claims_has (served)
    || (served->is_local && nr_images <= MAX_KEPT);
}

void
images_put (struct served_image *served)
{
  struct served_image **p = &images;

  if (served->name == NULL)
    return;
  LOCK_FOR_SCOPE (&images_lock);
  if (--served->users > 0 || is_worth_keeping (served))
    return;
  while (*p != served)
    p = &(*p)->next;
  *p = served->next;
  nr_images--;
  image_free (served);
}

/* Those that are open, for the caller to use and to free; *n: how many. */
static struct served_image **
get_open (size_t *n)
{
  struct served_image **all;

  LOCK_FOR_SCOPE (&images_lock);
  *n = 0;
  all = malloc ((nr_images + 1) * sizeof *all);
  for (struct served_image *i = images; i && all; i = i->next)
    if (i->users > 0 || claims_has (i)) {
      i->users++;
      all[(*n)++] = i;
    }
  return all;
}

void
images_each (void (*fn) (struct served_image *))
{
  CLEANUP_FREE struct served_image **all = NULL;
  size_t n;

  if (!config.directory) {
    fn (images_the_one ());
    return;
  }
  all = get_open (&n);
  for (size_t i = 0; i < n; i++) {
    fn (all[i]);
    images_put (all[i]);
  }
}

void
images_free (void)
{
  while (images) {
    struct served_image *served = images;

    images = served->next;
    image_free (served);
  }
}
