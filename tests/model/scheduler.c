/* qcow2ext: runs threads in an order that the test says.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include "build-config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "scheduler.h"
#include "store-memory.h"

/* Whoever passes more points than this is in an endless loop. */
#define MAX_POINTS 20000

int __real_pthread_mutex_lock (pthread_mutex_t *mutex);
int __real_pthread_mutex_unlock (pthread_mutex_t *mutex);
int __real_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock (pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock (pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex);

enum state { IDLE, PARKED, BLOCKED, DONE };

#define NOBODY SCHED_THREADS    /* the one who called sched_run has its turn */
#define EVERYBODY_ENDS (SCHED_THREADS + 1)

struct worker {
  pthread_t thread;
  pthread_cond_t wake;
  unsigned number;
  enum state state;             /* why it gave way */
  unsigned left;                /* points until it parks; 0: it does not */
  unsigned held;                /* locks of the engine's */
  size_t passed;                /* points */
};

static struct {
  pthread_mutex_t lock;         /* guards turn alone: who has it, may */
  pthread_cond_t driver;
  unsigned turn;
  struct worker worker[SCHED_THREADS];
  bool created;
  void (*body) (void *opaque, unsigned thread);
  void *opaque;
} sched = { .lock = PTHREAD_MUTEX_INITIALIZER,
            .driver = PTHREAD_COND_INITIALIZER, .turn = NOBODY };

static _Thread_local struct worker *self;
bool sched_verbose;

/* --- in a scheduled thread --- */

static void
wait_for_turn (struct worker *w)
{
  while (sched.turn != w->number && sched.turn != EVERYBODY_ENDS)
    __real_pthread_cond_wait (&w->wake, &sched.lock);
}

static void
give_way (enum state state)
{
  __real_pthread_mutex_lock (&sched.lock);
  self->state = state;
  sched.turn = NOBODY;
  pthread_cond_signal (&sched.driver);
  wait_for_turn (self);
  __real_pthread_mutex_unlock (&sched.lock);
}

void
sched_point (const char *name)
{
  if (self == NULL)
    return;
  if (++self->passed > MAX_POINTS) {
    fprintf (stderr, "an endless loop at \"%s\"\n", name);
    abort ();
  }
  if (sched_verbose)
    fprintf (stderr, "    %u: %s\n", self->number, name);
  if (self->left && --self->left == 0)
    give_way (PARKED);
}

static void
take (pthread_mutex_t *mutex)
{
  while (pthread_mutex_trylock (mutex) == EBUSY)
    give_way (BLOCKED);
  self->held++;
}

int
__wrap_pthread_mutex_lock (pthread_mutex_t *mutex)
{
  if (self == NULL || !memory_in_engine)
    return __real_pthread_mutex_lock (mutex);
  if (self->held == 0)
    sched_point ("lock");
  take (mutex);
  return 0;
}

int
__wrap_pthread_mutex_unlock (pthread_mutex_t *mutex)
{
  if (self && memory_in_engine)
    self->held--;
  return __real_pthread_mutex_unlock (mutex);
}

/* Wakes up whenever it has its turn, which callers must bear anyway. */
int
__wrap_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex)
{
  if (self == NULL || !memory_in_engine)
    return __real_pthread_cond_wait (cond, mutex);
  __wrap_pthread_mutex_unlock (mutex);
  give_way (BLOCKED);
  take (mutex);
  return 0;
}

static void *
work (void *opaque)
{
  self = opaque;
  for (;;) {
    __real_pthread_mutex_lock (&sched.lock);
    wait_for_turn (self);
    __real_pthread_mutex_unlock (&sched.lock);
    if (sched.turn == EVERYBODY_ENDS)
      return NULL;
    sched.body (sched.opaque, self->number);
    give_way (DONE);
  }
}

/* --- who schedules --- */

static enum state
resume (struct worker *w, unsigned left)
{
  w->left = left;
  __real_pthread_mutex_lock (&sched.lock);
  sched.turn = w->number;
  pthread_cond_signal (&w->wake);
  while (sched.turn != NOBODY)
    __real_pthread_cond_wait (&sched.driver, &sched.lock);
  __real_pthread_mutex_unlock (&sched.lock);
  return w->state;
}

/* Moves somebody else by one point, so that w may go on. */
static bool
move_another (unsigned n, const struct worker *w)
{
  for (unsigned i = 0; i < n; i++) {
    struct worker *other = &sched.worker[i];

    if (other != w && other->state != DONE && resume (other, 1) != BLOCKED)
      return true;
  }
  return false;
}

/* Threads that run one at a time hand over faster on one processor. */
static void
stay_here (void)
{
  cpu_set_t here;

  CPU_ZERO (&here);
  CPU_SET (sched_getcpu (), &here);
  sched_setaffinity (0, sizeof here, &here);
}

static void
create (void)
{
  stay_here ();
  for (unsigned i = 0; i < SCHED_THREADS; i++) {
    struct worker *w = &sched.worker[i];

    w->number = i;
    pthread_cond_init (&w->wake, NULL);
    if (pthread_create (&w->thread, NULL, work, w) != 0)
      abort ();
  }
  sched.created = true;
}

void
sched_end (void)
{
  if (!sched.created)
    return;
  __real_pthread_mutex_lock (&sched.lock);
  sched.turn = EVERYBODY_ENDS;
  for (unsigned i = 0; i < SCHED_THREADS; i++)
    pthread_cond_signal (&sched.worker[i].wake);
  __real_pthread_mutex_unlock (&sched.lock);
  for (unsigned i = 0; i < SCHED_THREADS; i++) {
    pthread_join (sched.worker[i].thread, NULL);
    pthread_cond_destroy (&sched.worker[i].wake);
  }
  sched.turn = NOBODY;
  sched.created = false;
}

void
sched_run (unsigned n, void (*body) (void *opaque, unsigned thread),
           void *opaque, const struct schedule *schedule,
           struct sched_result *result)
{
  if (!sched.created)
    create ();
  sched.body = body;
  sched.opaque = opaque;
  for (unsigned i = 0; i < n; i++) {
    sched.worker[i].state = IDLE;
    sched.worker[i].passed = 0;
  }
  *result = (struct sched_result) { 0 };

  for (size_t i = 0; i < schedule->segments + n; i++) {
    const struct sched_segment s = i < schedule->segments
      ? schedule->segment[i]
      : (struct sched_segment) { i - schedule->segments, 0 };
    struct worker *w = &sched.worker[s.thread];
    unsigned left = s.points;
    enum state state;

    if (w->state == DONE)
      continue;
    while ((state = resume (w, left)) == BLOCKED) {
      left = w->left;
      if (!move_another (n, w)) {
        result->deadlock = true;
        return;                 /* with threads that never come back */
      }
    }
    if (state == PARKED)
      result->reached++;
  }
  for (unsigned i = 0; i < n; i++)
    result->passed[i] = sched.worker[i].passed;
}
