/* qcow2ext: what waits for requests in place.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A thread waits for requests that are under way, while another one zeroes,
 * for which it must not have to wait, and then lets the requests end.
 */

#include "build-config.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"
#include "data/in-place.h"

static struct in_place ip;
static atomic_bool returned;

static void *
wait_for_range (void *opaque)
{
  (void) opaque;
  in_place_wait (&ip, 0, 100);
  returned = true;
  return NULL;
}

/* Starts a thread that is to wait, and returns when it does. */
static pthread_t
begin_waiting (void)
{
  pthread_t thread;

  returned = false;
  CHECK (pthread_create (&thread, NULL, wait_for_range, NULL) == 0);
  while (ip.waiters == 0 && !returned)
    sched_yield ();
  CHECK (!returned);
  return thread;
}

/* One request is under way. */
static void
test_one_epoch (void)
{
  const struct epoch_ticket ticket = in_place_enter (&ip);
  pthread_t thread;

  in_place_zeroed (&ip, 50, 150);
  in_place_wait (&ip, 0, 50);   /* they do not overlap */
  in_place_wait (&ip, 150, 200);
  thread = begin_waiting ();
  in_place_zeroed (&ip, 300, 400);
  CHECK (!returned);
  in_place_leave (&ip, ticket);
  pthread_join (thread, NULL);
  CHECK (ip.any && ip.waiters == 0);
  in_place_wait (&ip, 0, 100);
  CHECK (!ip.any);
}

/* The epoch cannot even be advanced: requests of two are under way. */
static void
test_two_epochs (void)
{
  const struct epoch_ticket first = in_place_enter (&ip);
  struct epoch_ticket second;
  pthread_t thread;
  unsigned epoch;

  CHECK (epochs_advance (&ip.epochs, &epoch));
  second = in_place_enter (&ip);
  in_place_zeroed (&ip, 50, 150);
  thread = begin_waiting ();
  in_place_zeroed (&ip, 300, 400);
  in_place_leave (&ip, first);
  CHECK (!returned);
  in_place_leave (&ip, second);
  pthread_join (thread, NULL);
  CHECK (ip.any && ip.waiters == 0);
  in_place_wait (&ip, 0, 100);
}

/* Nothing is under way, so there is nothing to be noted. */
static void
test_idle (void)
{
  in_place_zeroed (&ip, 0, 100);
  CHECK (!ip.any);
  in_place_wait (&ip, 0, 100);
}

int
main (void)
{
  alarm (20);                   /* what waits for ever has failed */
  in_place_init (&ip);
  test_idle ();
  test_one_epoch ();
  test_two_epochs ();
  in_place_destroy (&ip);
  return EXIT_SUCCESS;
}
