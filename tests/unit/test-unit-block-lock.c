/* qcow2ext: are locks of blocks granted in the order of coming?
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../../filter/block-lock.h"

static struct block_locks locks = BLOCK_LOCKS_INIT;

static void
fail (const char *what)
{
  fprintf (stderr, "%s\n", what);
  exit (1);
}

/* One who locks in a thread of its own, and unlocks when told to. */
struct locker {
  pthread_t thread;
  struct block_lock l;
  uint64_t start, end;
  bool exclusive;
  atomic_bool granted, let_go;
};

static void *
lock_and_wait (void *arg)
{
  struct locker *k = arg;

  block_lock (&locks, &k->l, k->start, k->end, k->exclusive);
  k->granted = true;
  while (!k->let_go)
    sched_yield ();
  block_unlock (&locks, &k->l);
  return NULL;
}

static void
until (atomic_bool *condition, const char *what)
{
  const time_t end = time (NULL) + 20;

  while (!*condition) {
    if (time (NULL) > end)
      fail (what);
    sched_yield ();
  }
}

/* Starts a locker, and waits until it is in the list. */
static void
come (struct locker *k, uint64_t start, uint64_t end, bool exclusive)
{
  const time_t deadline = time (NULL) + 20;

  *k = (struct locker) {
    .start = start, .end = end, .exclusive = exclusive,
  };
  pthread_create (&k->thread, NULL, lock_and_wait, k);
  for (;;) {
    bool there;

    pthread_mutex_lock (&locks.mutex);
    there = locks.last == &k->l;
    pthread_mutex_unlock (&locks.mutex);
    if (there)
      return;
    if (time (NULL) > deadline)
      fail ("a thread does not come");
    sched_yield ();
  }
}

static void
go (struct locker *k)
{
  k->let_go = true;
  pthread_join (k->thread, NULL);
}

static void
order (void)
{
  struct locker reader, writer, late, apart, beside;

  come (&reader, 0, 10, false);
  until (&reader.granted, "the first is not granted");
  come (&writer, 4, 6, true);
  come (&late, 0, 10, false);
  come (&apart, 10, 20, true);
  until (&apart.granted, "what overlaps with nothing waits");
  come (&beside, 6, 8, false);
  until (&beside.granted, "a shared one waits for shared ones");
  if (writer.granted)
    fail ("an exclusive one is granted beside a shared one");
  if (late.granted)
    fail ("a later one overtakes one that waits");
  go (&reader);
  until (&writer.granted, "the exclusive one is not granted");
  if (late.granted)
    fail ("a shared one is granted beside an exclusive one");
  go (&writer);
  until (&late.granted, "the last one is not granted");
  go (&beside);
  go (&apart);
  go (&late);
  if (locks.first || locks.last)
    fail ("something is left in the list");
}

/* Who is in each of 16 places: -1, or how many share it. */
static atomic_int in[16];

static void *
random_locks (void *arg)
{
  unsigned seed = (uintptr_t) arg;

  for (unsigned i = 0; i < 20000; i++) {
    struct block_lock l;
    const uint64_t start = rand_r (&seed) % 16;
    const uint64_t end = start + 1 + rand_r (&seed) % (16 - start);
    const bool exclusive = rand_r (&seed) % 2;

    block_lock (&locks, &l, start, end, exclusive);
    for (uint64_t j = start; j < end; j++) {
      if (exclusive && in[j] != 0)
        fail ("an exclusive lock is not alone");
      if (!exclusive && in[j] < 0)
        fail ("a shared lock beside an exclusive one");
      in[j] += exclusive ? -1 : 1;
    }
    for (uint64_t j = start; j < end; j++)
      in[j] -= exclusive ? -1 : 1;
    block_unlock (&locks, &l);
  }
  return NULL;
}

int
main (void)
{
  pthread_t thread[4];

  order ();
  for (uintptr_t i = 0; i < 4; i++)
    pthread_create (&thread[i], NULL, random_locks, (void *) (i + 1));
  for (unsigned i = 0; i < 4; i++)
    pthread_join (thread[i], NULL);
  if (locks.first || locks.last)
    fail ("something is left in the list");
  return 0;
}
