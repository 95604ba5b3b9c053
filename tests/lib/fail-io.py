#!/usr/bin/python3
"""Make each system call of a server fail once, for test-io-errors.sh.

  fail-io.py URI CONTROL PIDFILE IMAGE FILE...

The server runs with fail-io.c in front of it; CONTROL is its FAIL_IO.  For
each call on each file, and for n = 1, 2, 3... until the nth one is not met:
a client writes, zeroes, trims and flushes, and must be told of an error of
the right kind; the server must live, the image be sound, and what was flushed
be there when it is opened again.  A server that has lost something writes
nothing any more, so it is started again with ./restart.
"""

import errno
import os
import random
import subprocess
import sys

import nbd

SECTOR = 512
uri, control, pidfile, image = sys.argv[1:5]
files = sys.argv[5:]
rng = random.Random(4711)
flushed = {}        # sector -> bytes: what was certain at the last flush
later = {}          # sector -> all that was written since
errors = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
sessions = met_faults = restarts = 0


def connect():
    h = nbd.NBD()
    h.connect_uri(uri)
    return h


class Client:
    """One connection, and what it knows of the disk."""

    def __init__(self):
        self.h = connect()
        self.size = self.h.get_size()
        self.seen = []
        self.requests = 0
        self.first_failed = False

    def note(self, at, blob):
        for i in range(0, len(blob), SECTOR):
            s = (at + i) // SECTOR
            later.setdefault(s, []).append(blob[i:i + SECTOR])

    def change(self, kind, at, n):
        blob = rng.randbytes(n) if kind == "write" else bytes(n)
        self.note(at, blob)
        self.requests += 1
        try:
            if kind == "write":
                self.h.pwrite(blob, at)
            elif kind == "zero":
                self.h.zero(n, at)
            else:
                self.h.trim(n, at)
        except nbd.Error as e:
            self.seen.append(e.errnum)
            self.first_failed |= self.requests == 1

    def flush(self):
        # What is there now is what is flushed; after an error, that may be
        # anything that was ever asked for.
        try:
            now = bytes(self.h.pread(self.size, 0))
            self.h.flush()
        except nbd.Error as e:
            self.seen.append(e.errnum)
            return
        settle(now)


def settle(now):
    later.clear()
    for s in range(len(now) // SECTOR):
        flushed[s] = now[s * SECTOR:(s + 1) * SECTOR]


def workload(c):
    k = 65536
    c.change("write", 3 * k, k)
    c.change("write", rng.randrange(0, 2 * k, SECTOR), 5 * SECTOR)
    c.flush()
    c.change("zero", 3 * k, k)
    c.change("write", 5 * k + 1024, 4096)
    c.change("trim", 6 * k, 2 * k)
    c.flush()
    c.change("write", 6 * k, k)
    c.change("write", 3 * k + 512, 1024)
    c.change("zero", k, 2048)
    c.flush()
    c.change("write", 9 * k + rng.randrange(0, k, SECTOR), SECTOR)


def judge(what, lost):
    """What is on the disk is the flushed, or something later.  If a flush
    has failed, the server must know that."""
    global restarts
    h = connect()
    now = bytes(h.pread(h.get_size(), 0))
    refuses = h.is_read_only()
    h.shutdown()
    if lost and not refuses:
        sys.exit(what + ": a later client may write")
    if refuses:
        restarts += 1
        subprocess.check_call(["bash", "./restart"])
    for s in range(len(now) // SECTOR):
        data = now[s * SECTOR:(s + 1) * SECTOR]
        if data != flushed.get(s, bytes(SECTOR)) \
           and data not in later.get(s, []):
            sys.exit("%s: sector %d is wrong" % (what, s))
    settle(now)


def one(call, name, nth, error):
    """Returns whether the fault was met."""
    global sessions, met_faults
    what = "%s of %s, number %d, %s" % (call, name, nth, error)
    with open(control + ".new", "w") as f:
        f.write("%s %s %d %d\n" % (call, name, nth, errors[error]))
    os.rename(control + ".new", control)
    sessions += 1
    c = None
    lost = False
    try:
        c = Client()
    except nbd.Error:
        if not os.path.exists(control + ".met"):
            raise
    if c:
        workload(c)
        met = os.path.exists(control + ".met")
        os.unlink(control)
        # The first flush that fails is the last thing that is written.  But
        # what is done before the first change, and changes nothing, is tried
        # again if there was no space for it.
        again = c.first_failed and error == "ENOSPC"
        if call == "fdatasync" and met and not c.seen:
            sys.exit(what + ": nobody was told")
        if call == "fdatasync" and met and not again:
            # If the first change was refused, there was nothing to lose.
            lost = not c.first_failed
            for kind in "write", "zero", "trim":
                c.seen.clear()
                c.change(kind, 0, SECTOR)
                if not c.seen:
                    sys.exit("%s: a %s is not refused" % (what, kind))
            c.seen.clear()
            c.flush()
            if not c.seen:
                sys.exit(what + ": a flush is not refused")
        # Where there is no space, some may be found.
        if call == "pwrite" and met and not c.seen and error == "EIO":
            sys.exit(what + ": nobody was told")
        for e in c.seen:
            if e not in (errors[error], errno.EIO):
                sys.exit("%s: the client got %d" % (what, e))
        if c.seen and not met:
            sys.exit(what + ": something failed by itself")
        # The disk can be read whatever has happened.
        c.h.pread(c.size, 0)
        c.h.shutdown()
    else:
        os.unlink(control)
    met = os.path.exists(control + ".met")
    if met:
        os.unlink(control + ".met")
    met_faults += met
    try:
        with open(pidfile) as f:
            pid = f.read().strip()
        with open("/proc/%s/stat" % pid) as f:
            alive = f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        alive = False
    if not alive:
        sys.exit(what + ": the server has gone")
    r = subprocess.run(["qemu-img", "check", "-f", "qcow2", image],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if r.returncode not in (0, 3):
        sys.stdout.buffer.write(r.stdout)
        sys.exit(what + ": the image is not sound")
    judge(what, lost)
    return met


def main():
    for call in "pwrite", "fdatasync", "fallocate", "ftruncate", "pread":
        for name in files:
            for error in errors:
                if error == "ENOSPC" and call == "pread":
                    continue
                nth = 1
                while one(call, name, nth, error):
                    nth += 1
                print("%s %s %s: %d" % (call, name, error, nth - 1))
    print("%d faults met in %d sessions of %d servers"
          % (met_faults, sessions, restarts + 1))
    if met_faults < 20:
        sys.exit("hardly anything has failed")


main()
