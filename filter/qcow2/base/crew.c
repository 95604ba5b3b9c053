/* qcow2ext: threads that help with a request of many parts.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A request is a job on the stack of the thread that asks, which works on it
 * like the others.  So a job ends even if no other thread ever comes, and a
 * crew whose threads cannot be started is only slower.
 *
 *   listed --last part is taken, or a part failed--> unlisted
 *          --all parts that were taken have ended--> gone
 *
 * Invariant: a thread of the crew touches a job only while the job is listed
 * or counts that thread among its helpers; the thread that asks takes the job
 * away when it is unlisted and has no helpers.
 *
 * Where as many threads ask as there are processors, help only adds switches
 * between threads.  So a thread of the crew is called only if no more than
 * crew->limit are at work, those that ask included.  At least one of these
 * asks, so that fewer than crew->limit help, and thread[] has room for one
 * more.
 *
 * One mutex guards everything here.  It is not held while a part is done.
 */

#include "build-config.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/crew.h"

/* Past this number, sharing costs more than it gains. */
#define THREADS_MAX 16

struct job {
  struct job *next;             /* while listed */
  int (*work) (void *opaque, size_t i);
  void *opaque;
  size_t next_part, parts;
  unsigned helpers;             /* threads of the crew that are at it */
  int result;
  pthread_cond_t ended;         /* helpers has become 0 */
};

struct crew {
  pthread_mutex_t lock;
  pthread_cond_t wanted;        /* called has grown, or closing is set */
  struct job *jobs;             /* with parts that nobody has taken */
  unsigned limit;               /* threads at most */
  unsigned started;             /* threads */
  unsigned called;              /* of these, that are to come */
  unsigned helping;             /* of these, called or at a job */
  unsigned at_work;             /* helping, and threads that asked */
  bool closing;
  pthread_t thread[THREADS_MAX];
};

static unsigned
processors (void)
{
  cpu_set_t set;

  return sched_getaffinity (0, sizeof set, &set) == 0 ? CPU_COUNT (&set) : 1;
}

struct crew *
crew_new (unsigned threads)
{
  struct crew *crew = calloc (1, sizeof *crew);

  if (crew == NULL)
    return NULL;
  if (threads == 0)
    threads = processors () - 1;
  crew->limit = threads < THREADS_MAX ? threads : THREADS_MAX;
  pthread_mutex_init (&crew->lock, NULL);
  pthread_cond_init (&crew->wanted, NULL);
  return crew;
}

void
crew_free (struct crew *crew)
{
  if (crew == NULL)
    return;
  {
    LOCK_FOR_SCOPE (&crew->lock);
    crew->closing = true;
    pthread_cond_broadcast (&crew->wanted);
  }
  for (unsigned i = 0; i < crew->started; i++)
    pthread_join (crew->thread[i], NULL);
  pthread_cond_destroy (&crew->wanted);
  pthread_mutex_destroy (&crew->lock);
  free (crew);
}

static void
unlist (struct crew *crew, const struct job *job)
{
  struct job **p = &crew->jobs;

  while (*p && *p != job)
    p = &(*p)->next;
  if (*p)
    *p = job->next;
}

/* Does parts of a listed job until all are taken.  Called under the lock,
 * which is released while a part is done.
 */
static void
do_parts (struct crew *crew, struct job *job)
{
  while (job->next_part < job->parts) {
    const size_t i = job->next_part++;
    int r;

    if (job->next_part == job->parts)
      unlist (crew, job);
    pthread_mutex_unlock (&crew->lock);
    r = job->work (job->opaque, i);
    pthread_mutex_lock (&crew->lock);
    if (r != 0) {
      job->result = r;
      job->next_part = job->parts;
      unlist (crew, job);
    }
  }
}

static void *
crew_thread (void *opaque)
{
  struct crew *crew = opaque;

  LOCK_FOR_SCOPE (&crew->lock);
  while (!crew->closing) {
    struct job *job;

    if (crew->called == 0) {
      pthread_cond_wait (&crew->wanted, &crew->lock);
      continue;
    }
    crew->called--;
    while ((job = crew->jobs) != NULL && crew->at_work <= crew->limit + 1) {
      job->helpers++;
      do_parts (crew, job);
      if (--job->helpers == 0)
        pthread_cond_signal (&job->ended);
    }
    crew->helping--;
    crew->at_work--;
  }
  return NULL;
}

/* Starts a thread.  Returns whether that worked. */
static bool
start_thread (struct crew *crew)
{
  sigset_t all, old;
  int r;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  r = pthread_create (&crew->thread[crew->started], NULL, crew_thread, crew);
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  if (r == 0)
    crew->started++;
  return r == 0;
}

/* Calls threads for up to that many parts.  Under the lock. */
static void
call_help (struct crew *crew, size_t parts)
{
  for (; parts > 0 && crew->at_work <= crew->limit; parts--) {
    if (crew->helping == crew->started && !start_thread (crew))
      return;
    crew->called++;
    crew->helping++;
    crew->at_work++;
    pthread_cond_signal (&crew->wanted);
  }
}

int
crew_run (struct crew *crew, size_t parts,
          int (*work) (void *opaque, size_t i), void *opaque)
{
  struct job job = { .work = work, .opaque = opaque, .parts = parts };

  if (crew == NULL || crew->limit == 0 || parts <= 1) {
    for (size_t i = 0; i < parts && job.result == 0; i++)
      job.result = work (opaque, i);
    return job.result;
  }

  pthread_cond_init (&job.ended, NULL);
  {
    LOCK_FOR_SCOPE (&crew->lock);
    job.next = crew->jobs;
    crew->jobs = &job;
    crew->at_work++;
    call_help (crew, parts - 1);
    do_parts (crew, &job);
    while (job.helpers)
      pthread_cond_wait (&job.ended, &crew->lock);
    crew->at_work--;
  }
  pthread_cond_destroy (&job.ended);
  return job.result;
}
