#!/usr/bin/env python3
# Holds a lease of a file, as file servers do for their clients, until somebody
# else wants to open it, and a moment longer.
#
#   lease.py read|write FILE
#
# FILE.held is there as soon as the lease is, FILE.asked when it is given up.

import fcntl
import os
import signal
import sys
import time

kind, path = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fd = os.open(path, os.O_RDONLY if kind == "read" else os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE,
            fcntl.F_RDLCK if kind == "read" else fcntl.F_WRLCK)
open(path + ".held", "w").close()
signal.sigwait([signal.SIGIO])
time.sleep(0.2)
open(path + ".asked", "w").close()
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
