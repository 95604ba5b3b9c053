/* qcow2ext: memory for keys and pass phrases.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each secret has pages of its own, which begin with a link in the list of
 * all.
 *
 * Lock: "lock" guards the list.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "secret.h"

struct secret {
  struct secret *next, **prev;
  size_t mapped;                /* bytes, this structure included */
  _Alignas (max_align_t) uint8_t bytes[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct secret *secrets;

void *
secret_alloc (size_t size)
{
  const size_t page = sysconf (_SC_PAGESIZE);
  struct secret *s;
  size_t mapped;

  if (__builtin_add_overflow (size, sizeof *s + page - 1, &mapped)) {
    errno = ENOMEM;
    return NULL;
  }
  mapped -= mapped % page;
  s = mmap (NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
            -1, 0);
  if (s == MAP_FAILED)
    return NULL;
  madvise (s, mapped, MADV_DONTDUMP);
  mlock (s, mapped);
  s->mapped = mapped;

  LOCK_FOR_SCOPE (&lock);
  s->next = secrets;
  s->prev = &secrets;
  if (s->next)
    s->next->prev = &s->next;
  secrets = s;
  return s->bytes;
}

void
secret_free (void *secret)
{
  struct secret *s;
  size_t mapped;

  if (secret == NULL)
    return;
  s = (struct secret *) ((uint8_t *) secret - offsetof (struct secret, bytes));
  pthread_mutex_lock (&lock);
  *s->prev = s->next;
  if (s->next)
    s->next->prev = s->prev;
  pthread_mutex_unlock (&lock);
  mapped = s->mapped;
  explicit_bzero (s, mapped);
  munmap (s, mapped);
}

void
secret_relock (void)
{
  LOCK_FOR_SCOPE (&lock);
  for (struct secret *s = secrets; s; s = s->next)
    mlock (s, s->mapped);
}
