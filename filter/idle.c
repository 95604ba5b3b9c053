/* qcow2ext: a thread for clients that do nothing.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * What a client has written becomes durable although it stays connected and
 * flushes nothing: it may be the server that is killed.
 *
 * Lock: idle_lock guards whether the thread has to end.  It is not held while
 * the thread works.
 */

#include "build-config.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include <nbdkit-filter.h>

#include "base/cleanup.h"
#include "idle.h"
#include "images.h"
#include "sessions.h"

#define IDLE_SECONDS 2

static pthread_mutex_t idle_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle_quit;
static bool quitting;
static bool runs;
static pthread_t thread;

/* Waits for the time of the next look; false: the server quits. */
static bool
wait_for_next (void)
{
  struct timespec when;

  LOCK_FOR_SCOPE (&idle_lock);
  clock_gettime (CLOCK_MONOTONIC, &when);
  when.tv_sec += IDLE_SECONDS;
  while (!quitting
         && pthread_cond_timedwait (&idle_quit, &idle_lock, &when) == 0)
    ;
  return !quitting;
}

static void *
idle_thread (void *arg)
{
  (void) arg;
  while (wait_for_next ())
    images_each (sessions_look);
  return NULL;
}

void
idle_start (void)
{
  pthread_condattr_t monotonic;
  int err;

  pthread_condattr_init (&monotonic);
  pthread_condattr_setclock (&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init (&idle_quit, &monotonic);
  pthread_condattr_destroy (&monotonic);
  err = pthread_create (&thread, NULL, idle_thread, NULL);
  if (err)
    nbdkit_error ("warning: no thread for idle clients: %s", strerror (err));
  else
    runs = true;
}

void
idle_stop (void)
{
  if (!runs)
    return;
  pthread_mutex_lock (&idle_lock);
  quitting = true;
  pthread_cond_signal (&idle_quit);
  pthread_mutex_unlock (&idle_lock);
  pthread_join (thread, NULL);
  runs = false;
}
