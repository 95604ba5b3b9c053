/* qcow2ext: a limit of file sizes is an error, not the end of the server.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A process that makes a file larger than RLIMIT_FSIZE allows (by pwrite,
 * ftruncate or fallocate) gets EFBIG, and also SIGXFSZ, which by default ends
 * it.
 *
 * The signal is caught, by a function that does nothing, and not ignored: what
 * is ignored stays so in programs that the server runs (--run, the scripts of
 * nbdkit's sh and eval), and what is caught does not.  Blocking it in the
 * threads that write would be inherited likewise, and would miss what the
 * plugin below writes for us.
 *
 * Where somebody else has decided about the signal already, that stays.
 */

#include "build-config.h"

#include <signal.h>

#include "size-signal.h"

static void
do_nothing (int signal)
{
  (void) signal;
}

void
size_signal_catch (void)
{
  const struct sigaction sa = {
    .sa_handler = do_nothing, .sa_flags = SA_RESTART,
  };
  struct sigaction old;

  if (sigaction (SIGXFSZ, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO)
      && old.sa_handler == SIG_DFL)
    sigaction (SIGXFSZ, &sa, NULL);
}

/* The function is about to be unloaded. */
void
size_signal_undo (void)
{
  const struct sigaction sa = { .sa_handler = SIG_DFL };
  struct sigaction old;

  if (sigaction (SIGXFSZ, NULL, &old) == 0
      && old.sa_handler == do_nothing)
    sigaction (SIGXFSZ, &sa, NULL);
}
