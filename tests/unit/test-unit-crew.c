/* qcow2ext: threads that help with a request.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each part is done once, by several threads at a time where there is work
 * for them; a part that fails is the last one; many requests share a crew;
 * and nothing of a request is used after it.  Run this under a sanitizer for
 * threads, too.
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "base/crew.h"

#define PARTS 200
#define HELPERS 3
#define DEADLINE 60             /* seconds */

/* The linker sends calls of pthread_create here. */
static bool no_threads;
static atomic_uint threads_started;
int __real_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                           void *(*start) (void *), void *opaque);
int __wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                           void *(*start) (void *), void *opaque);

int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                       void *(*start) (void *), void *opaque)
{
  threads_started++;
  return no_threads ? EAGAIN
                    : __real_pthread_create (thread, attr, start, opaque);
}

/* Those of pthread_join here: whoever is waited for has been started. */
int __real_pthread_join (pthread_t thread, void **result);
int __wrap_pthread_join (pthread_t thread, void **result);

int
__wrap_pthread_join (pthread_t thread, void **result)
{
  CHECK (thread != 0 && __real_pthread_join (thread, result) == 0);
  return 0;
}

/* And those of sched_getaffinity here. */
static unsigned processors;     /* that this process may use; 0: unknown */
int __wrap_sched_getaffinity (pid_t pid, size_t size, cpu_set_t *set);

int
__wrap_sched_getaffinity (pid_t pid, size_t size, cpu_set_t *set)
{
  CHECK (pid == 0 && size == sizeof *set);
  CPU_ZERO (set);
  for (unsigned i = 0; i < processors; i++)
    CPU_SET (2 * i, set);
  return processors ? 0 : -1;
}

/* A request, without locks of its own: what a part writes must be there when
 * the request is over.
 */
struct request {
  unsigned done[PARTS];
  size_t fail_at;
  atomic_uint together;         /* parts that are under way */
  unsigned wanted;              /* that many must be at once */
};

static bool
signals_are_blocked (void)
{
  sigset_t set;

  pthread_sigmask (SIG_SETMASK, NULL, &set);
  return sigismember (&set, SIGTERM) && sigismember (&set, SIGINT);
}

static int
work (void *opaque, size_t i)
{
  struct request *r = opaque;

  r->done[i]++;
  return i == r->fail_at ? -EIO : 0;
}

/* Waits until others are at other parts of the request. */
static int
meet (void *opaque, size_t i)
{
  struct request *r = opaque;
  const time_t end = time (NULL) + DEADLINE;

  r->done[i]++;
  r->together++;
  while (r->together < r->wanted) {
    CHECK (time (NULL) < end);
    nanosleep (&(struct timespec) { .tv_nsec = 100000 }, NULL);
  }
  return 0;
}

static void
check_done (const struct request *r, size_t parts)
{
  for (size_t i = 0; i < PARTS; i++)
    CHECK (r->done[i] == (i < parts));
}

static void
test_all_parts (struct crew *crew)
{
  for (size_t parts = 0; parts <= PARTS; parts += parts < 8 ? 1 : 64) {
    struct request r = { .fail_at = SIZE_MAX };

    CHECK (crew_run (crew, parts, work, &r) == 0);
    check_done (&r, parts);
  }
}

/* However few the parts, each has a thread. */
static void
test_together (struct crew *crew)
{
  for (unsigned parts = 2; parts <= HELPERS + 1; parts++) {
    struct request r = { .wanted = parts };

    CHECK (crew_run (crew, parts, meet, &r) == 0);
    check_done (&r, parts);
  }
}

static void
test_failure (struct crew *crew)
{
  for (size_t fail = 0; fail < PARTS; fail += 13) {
    struct request r = { .fail_at = fail };
    unsigned begun = 0;

    CHECK (crew_run (crew, PARTS, work, &r) == -EIO);
    for (size_t i = 0; i < PARTS; i++)
      begun += r.done[i];
    CHECK (r.done[fail] == 1);
    if (crew == NULL || no_threads)
      CHECK (begun == fail + 1);
  }
}

/* Unless a number of threads is given, there are as many as processors, with
 * the one that asks.
 */
static void
test_processors (void)
{
  for (processors = 0; processors <= HELPERS + 1; processors++) {
    struct request r = { .wanted = processors };
    struct crew *crew = crew_new (0);

    CHECK (crew);
    threads_started = 0;
    CHECK (crew_run (crew, HELPERS + 1, meet, &r) == 0);
    check_done (&r, HELPERS + 1);
    CHECK (threads_started == (processors > 1 ? processors - 1 : 0));
    test_all_parts (crew);
    crew_free (crew);
  }
}

static int
check_signals (void *opaque, size_t i)
{
  struct request *r = opaque;

  meet (r, i);
  if (!pthread_equal (pthread_self (), *(pthread_t *) (r + 1)))
    CHECK (signals_are_blocked ());
  return 0;
}

static void
test_signals (struct crew *crew)
{
  struct { struct request r; pthread_t self; } q = {
    .r = { .wanted = HELPERS + 1 }, .self = pthread_self (),
  };

  CHECK (!signals_are_blocked ());
  CHECK (crew_run (crew, HELPERS + 1, check_signals, &q.r) == 0);
  CHECK (!signals_are_blocked ());
}

static void *
ask (void *opaque)
{
  for (unsigned n = 0; n < 300; n++) {
    struct request *r = calloc (1, sizeof *r);
    const size_t parts = n % 17;

    CHECK (r);
    r->fail_at = n % 3 ? SIZE_MAX : 5;
    CHECK (crew_run (opaque, parts, work, r)
           == (n % 3 == 0 && parts > 5 ? -EIO : 0));
    free (r);
  }
  return NULL;
}

static void
test_many_requests (struct crew *crew)
{
  pthread_t thread[8];

  for (unsigned i = 0; i < 8; i++)
    CHECK (pthread_create (&thread[i], NULL, ask, crew) == 0);
  for (unsigned i = 0; i < 8; i++)
    pthread_join (thread[i], NULL);
}

int
main (void)
{
  struct crew *crew = crew_new (HELPERS);

  CHECK (crew);
  test_together (crew);
  test_signals (crew);
  test_all_parts (crew);
  test_failure (crew);
  test_many_requests (crew);
  test_together (crew);         /* all threads are free again */
  crew_free (crew);

  crew = crew_new (HELPERS);
  CHECK (crew);
  no_threads = true;
  test_all_parts (crew);
  test_failure (crew);
  no_threads = false;
  test_together (crew);
  crew_free (crew);

  test_processors ();

  test_all_parts (NULL);
  test_failure (NULL);
  crew_free (NULL);
  return EXIT_SUCCESS;
}
