#!/usr/bin/python3
"""What clients see of a server that dies and comes back: does an order explain it?

    clients.py FILTER [--seconds 120] [--seed N] [--keep DIR]
    clients.py FILTER --stutter         processes stop for moments
    clients.py --check FILE             judge a history again
    clients.py --self-test              of the checker
    clients.py FILTER --lies            plant lies, each of which must be noticed

Several clients read, write, zero, trim and flush a few sectors of one image.
The server is killed, or told to end; clients vanish or leave and connect again;
a server that holds the data file is killed, where it forgets what was not
flushed.  Each request is written down when it is sent and when it is answered.

The checker goes through that history sector by sector and keeps all that may be
true: what the sector holds, which answered and which unanswered requests have
been done, and which values a disk may have after a crash.  It says so if nothing
is left.  That is, for each sector

  - requests take effect once, between being sent and being answered, and what
    is read is what was there at some moment in between (linearizability);
  - what was refused or never answered may be done at any time, or never, as
    long as there is a server that may do it: ours, and the one with the data,
    which goes on with what a dead server of ours has sent to it;
  - a read and a write at the same time may meet within a sector, where the
    kernel copies them: of each byte there is what was at some moment;
  - a crash brings back the last value that was flushed, or a later one; a flush
    counts for what was answered before it was sent;
  - where a data server has forgotten what was not flushed, older values can be
    read, too, until our server is started again, which it has to be;
  - after the last client has left nothing that was answered is lost.

A sector is 512 bytes; one that holds another sector's bytes, or for good those
of two writes, explains itself by nothing.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

import nbd

SECTOR = 512
INITIAL = 1                     # who wrote what is there at the start
ALIEN = -1                      # nobody's


def stamp(who, sector):
    return struct.pack("<QQ", who, sector) * (SECTOR // 16)


def whose(blob, sector):
    """Who wrote it; or a list of several."""
    if not any(blob):
        return 0
    found = set()
    for who, at in struct.iter_unpack("<QQ", blob):
        found.add(who)
        if at not in (0, sector):
            return ALIEN
        if at != sector:        # half of it was zeroed
            found.add(0)
    return found.pop() if len(found) == 1 else sorted(found)


def parts(value):
    return value if isinstance(value, list) else [value]


class Wrong(Exception):
    pass


class TooMany(Exception):
    """More ways than can be followed: nothing is said of a sector any more."""


class Aborted(Exception):
    """nbdkit 1.32 aborts by itself now and then when a client vanishes while
    several answers are on their way to it.  That is as good as a kill."""


# --- the checker ---

# With more ways than the first, those that differ only in what the disk may hold
# are taken together, which forbids a little less.
MANY, TOO_MANY = 200, 1000


class Config:
    """One way in which it may have come about."""
    __slots__ = ("value", "disk", "marks", "done")

    def __init__(self, value, disk, marks=(), done=frozenset()):
        self.value = value
        self.disk = disk        # what may be there after a crash
        self.marks = marks      # (flush, what may be there once it succeeds)
        self.done = done        # requests without an answer that are done

    def key(self):
        return (self.value, self.disk, self.marks, self.done)

    def becomes(self, value):
        return (value, self.disk | {value},
                tuple((f, s | {value}) for f, s in self.marks))


class SectorChecker:
    def __init__(self, sector, value):
        self.sector = sector
        self.configs = [Config(value, frozenset([value]))]
        self.pending = {}       # id: (kind, value)
        self.loose = frozenset()        # values that may turn up at any time
        self.far = frozenset()  # and that a data server may still be sent
        self.had = frozenset([value, 0])        # all that ever was to be there
        self.stale = frozenset()        # of which this can be read for now
        self.most = 0

    def keep(self, configs, event):
        unique = {c.key(): c for c in configs}
        if not unique:
            raise Wrong("sector %d: nothing explains %s" % (self.sector, event))
        if len(unique) > MANY:
            together = {}
            for c in unique.values():
                t = together.setdefault((c.value, c.done), c)
                marks = dict(t.marks)
                for f, s in c.marks:
                    marks[f] = marks.get(f, frozenset()) | s
                t.disk, t.marks = t.disk | c.disk, tuple(marks.items())
            unique = together
        if len(unique) > TOO_MANY:
            raise TooMany()
        self.configs = list(unique.values())
        self.most = max(self.most, len(self.configs))

    def look(self, c):
        """Reads that can have looked by now have done so: that forbids
        nothing."""
        done = frozenset(p for p, (kind, value, _) in self.pending.items()
                         if kind == "read" and value == c.value)
        return c if done <= c.done else Config(c.value, c.disk, c.marks,
                                               c.done | done)

    def apply(self, c, op):
        """Configs after a change is done."""
        kind, value, fua = self.pending[op]
        done = c.done | {op}
        result = [Config(*c.becomes(value), done)]
        if kind == "trim":
            result.append(Config(c.value, c.disk, c.marks, done))
        if fua:
            for r in result:
                r.marks = r.marks + ((op, frozenset([r.value])),)
        return result

    def sent(self, op, kind, value, fua):
        if kind != "read":
            self.had |= {value}
        self.pending[op] = (kind, value, fua)

    def flush_sent(self, op):
        for c in self.configs:
            c.marks = c.marks + ((op, frozenset([c.value])),)

    def flush_answered(self, op, ok):
        for c in self.configs:
            for f, s in c.marks:
                if f == op and ok:
                    c.disk = s
            c.marks = tuple(m for m in c.marks if m[0] != op)

    def answered(self, op, event):
        """It is done by now, after what may have been done before it."""
        todo, seen, result = [], set(), []

        def add(c):
            c = self.look(c)
            if c.key() not in seen:
                seen.add(c.key())
                todo.append(c)
        for c in self.configs:
            add(c)
        kind, value, _ = self.pending[op]
        while todo:
            if len(seen) > 4 * TOO_MANY:
                raise TooMany()
            c = todo.pop()
            if op in c.done or (kind == "read"
                                and value in self.loose | self.far):
                result.append(Config(c.value, c.disk, c.marks, c.done - {op}))
                if op not in c.done:
                    # It is still there, or was there in the meantime.
                    result.append(Config(*c.becomes(value), c.done - {op}))
                else:
                    continue
            elif kind == "read" and value in self.stale:
                result.append(Config(c.value, c.disk, c.marks, c.done))
            for p, (what, _, _) in self.pending.items():
                if what != "read" and p not in c.done:
                    for n in self.apply(c, p):
                        add(n)
        fua = self.pending.pop(op)[2]
        self.keep(result, event)
        if fua:
            self.flush_answered(op, True)

    def lost(self, op):
        kind, value, _ = self.pending.pop(op)
        if kind != "read":
            self.loose |= {0 if kind == "trim" else value}
        for c in self.configs:
            c.done = c.done - {op}
            c.marks = tuple(m for m in c.marks if m[0] != op)

    def unanswered(self):
        return frozenset(0 if k == "trim" else v
                         for k, v, _ in self.pending.values() if k != "read")

    def crash(self, how):
        """Everything in memory is gone.  "kept": nothing that was there is
        lost; "stored": and a flush came after all that was written.  What a
        killed server has sent to a data server, that may yet do."""
        lost = self.loose | self.unanswered()
        configs = {}
        for c in self.configs:
            for v in ({c.value} if how in ("kept", "stored") else c.disk) \
                    | lost | self.far:
                disk = {v} if how == "stored" else c.disk | lost | {v}
                configs[v] = configs.get(v, frozenset()) | disk
        if how not in ("kept", "stored"):
            self.far |= lost
        self.loose, self.pending = frozenset(), {}
        self.stale = frozenset()
        self.configs = [Config(v, d) for v, d in configs.items()]

    def data_killed(self, forgets):
        """The data server does nothing any more of what it was sent.  Perhaps
        it has forgotten what was not flushed; we have not.  What it was just
        doing may be among that, although the answer comes, and what was read
        in the meantime."""
        if not forgets and not self.far:
            return
        if forgets:
            self.stale = self.had
        changes = [p for p, (kind, _, _) in self.pending.items()
                   if kind != "read"] if forgets else []
        if len(changes) > 8:
            raise TooMany()
        result = []
        for c in map(self.look, self.configs):
            turned_up = self.loose | self.far | self.unanswered()
            read = frozenset(p for p, (kind, value, _) in self.pending.items()
                             if kind == "read"
                             and value in turned_up | {c.value})
            for v in c.disk | turned_up if forgets else {c.value} | self.far:
                for n in range(1 << len(changes)):
                    done = c.done | {p for i, p in enumerate(changes)
                                     if n >> i & 1}
                    if forgets:
                        done |= read
                    result.append(Config(v, c.disk | {v}, tuple(
                        (f, s | {v}) for f, s in c.marks), done))
        self.far = frozenset()
        self.keep(result, "")


def check(history):
    """Raises Wrong; returns the most ways that a sector had, and of how many
    there were too many.  Events, in the order in which they were seen:
    ["disk", sectors, value at the start of each]
    ["send", id, kind, sector, count, value, fua]; ["flush", id]
    ["done", id, what was read or None]; ["lost", id] (refused, or no answer)
    ["crash", "killed", "kept" or "stored"]; ["data-lost"]; ["data-kept"]
    """
    sectors, ops, flushes, most, given_up = [], {}, set(), 0, set()

    def each(method, *args):
        for s in sectors:
            one(s, method, *args)

    def one(s, method, *args):
        if s.sector in given_up:
            return
        try:
            getattr(s, method)(*args)
        except TooMany:
            given_up.add(s.sector)

    answers = {e[1]: e[2] for e in history if e[0] == "done"}
    for number, e in enumerate(history):
        what = e[0]
        if what == "disk":
            sectors = [SectorChecker(i, v) for i, v in enumerate(e[1])]
        elif what == "send":
            ops[e[1]] = e
        elif what == "flush":
            flushes.add(e[1])
            each("flush_sent", e[1])
        elif what == "crash":
            each("crash", e[1])
            ops, flushes = {}, set()
        elif what in ("data-lost", "data-kept"):
            each("data_killed", what == "data-lost")
        elif e[1] in flushes:
            flushes.remove(e[1])
            each("flush_answered", e[1], what == "done")
        if what == "send":
            _, op, kind, first, count, value, fua = e
            if kind == "read" and op not in answers:
                continue
            for i, s in enumerate(range(first, first + count)):
                # Bytes of several are as good as several reads.
                for v in parts(answers[op][i] if kind == "read" else value):
                    one(sectors[s], "sent", part_id(op, kind, v), kind, v, fua)
        elif what in ("done", "lost") and e[1] in ops:
            _, op, kind, first, count, value, fua = ops.pop(e[1])
            if kind == "read" and what == "lost":
                continue
            for i, s in enumerate(range(first, first + count)):
                if what == "lost":
                    one(sectors[s], "lost", op)
                    continue
                for v in parts(e[2][i] if kind == "read" else value):
                    one(sectors[s], "answered", part_id(op, kind, v),
                        "event %d, %s %d%s" % (
                            number, kind, op, " of %s" % e[2][i]
                            if kind == "read" else ""))
    for s in sectors:
        most = max(most, s.most)
    return most, len(given_up)


def part_id(op, kind, value):
    return (op, value) if kind == "read" else op


def explain(history, sector):
    """The events of one sector."""
    mine, lines = set(), []
    for number, e in enumerate(history):
        if e[0] == "send":
            if not e[3] <= sector < e[3] + e[4]:
                continue
            mine.add(e[1])
            lines.append("%6d %s %d sent, fua %d" % (number, e[2], e[1], e[6]))
        elif e[0] in ("done", "lost"):
            if e[1] in mine:
                at = [x for x in history if x[0] == "send" and x[1] == e[1]]
                lines.append("%6d %s %d%s" % (
                    number, e[0], e[1], ": %s" % e[2][sector - at[0][3]]
                    if len(e) > 2 and e[2] else ""))
            elif number and len(e) > 1 and e[1] in explain.flushes:
                lines.append("%6d flush %d %s" % (number, e[1], e[0]))
        elif e[0] == "flush":
            explain.flushes.add(e[1])
            lines.append("%6d flush %d sent" % (number, e[1]))
        elif e[0] != "disk":
            lines.append("%6d %s" % (number, e))
    return "\n".join(lines)


explain.flushes = set()


# --- the clients ---

class Client:
    def __init__(self, world):
        self.world = world
        self.h = None
        self.flying = {}        # id: (kind, first, count, buffer)

    def connect(self):
        deadline = time.monotonic() + 60
        while True:
            self.h = nbd.NBD()
            try:
                self.h.connect_uri(self.world.uri)
                return
            except nbd.Error:
                if self.world.has_aborted():
                    raise Aborted() from None
                self.world.revive_far()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def send(self):
        w, rng, h = self.world, self.world.rng, self.h
        op = w.next
        w.next += 1
        kind = rng.choices(["write", "read", "zero", "trim", "flush"],
                           [10, 8, 3, 2, w.flushing])[0]

        def completed(error, op=op):
            w.answers.append((self, op, getattr(error, "value", error)))
            return 1
        if kind == "flush":
            w.history.append(["flush", op])
            self.flying[op] = (kind, 0, 0, None)
            h.aio_flush(completion=completed)
            return
        place = rng.choice(w.places)
        first = place + rng.randrange(w.spread)
        count = min(rng.choice([1, 1, 1, 2, 3, 8, 16]), w.sectors - first)
        fua = kind != "read" and rng.random() < 0.07
        value = op if kind == "write" else 0
        w.history.append(["send", op, kind, first, count, value, fua])
        flags = nbd.CMD_FLAG_FUA if fua else 0
        at, n = first * SECTOR, count * SECTOR
        buf = None
        # Refused by libnbd itself, it has no answer either.
        self.flying[op] = (kind, first, count, buf)
        if kind == "read":
            buf = nbd.Buffer(n)
            h.aio_pread(buf, at, completion=completed)
        elif kind == "write":
            buf = nbd.Buffer.from_bytearray(bytearray(b"".join(
                stamp(op, s) for s in range(first, first + count))))
            h.aio_pwrite(buf, at, completion=completed, flags=flags)
        elif kind == "zero":
            if rng.random() < 0.4:
                flags |= nbd.CMD_FLAG_NO_HOLE
            h.aio_zero(n, at, completion=completed, flags=flags)
        else:
            h.aio_trim(n, at, completion=completed, flags=flags)
        self.flying[op] = (kind, first, count, buf)

    def answer(self, op, error):
        if op not in self.flying:
            return
        kind, first, count, buf = self.flying.pop(op)
        w = self.world
        if error:
            w.errors += 1
            w.history.append(["lost", op])
        elif kind == "read":
            blob = bytes(buf.to_bytearray())
            w.history.append(["done", op, [
                whose(blob[i * SECTOR:(i + 1) * SECTOR], first + i)
                for i in range(count)]])
        else:
            w.wrote |= kind == "write"
            w.history.append(["done", op, None])

    def vanish(self):
        """Whatever is on its way has no answer, but the server may yet do it,
        and count the connection for a while."""
        if self.h is not None:
            self.world.strays = True
        self.h = None
        for op in list(self.flying):
            self.answer(op, 5)


class World:
    def __init__(self, seed, a, directory):
        self.seed, self.a, self.dir = seed, a, directory
        self.rng = random.Random("history-%d" % seed)
        self.history, self.answers = [], []
        self.next = 2
        self.errors = self.kills = self.aborted = 0
        self.server = self.far = None
        self.uri = "nbd+unix:///?socket=%s/s.sock" % directory
        self.data_forgets = False
        self.strays = self.wrote = False        # since the server was started
        self.log_seen = 0

    def run_tool(self, *args, ok=(0,)):
        p = subprocess.run(args, cwd=self.dir, text=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=120)
        if p.returncode not in ok:
            raise Wrong("%s: %d: %s" % (" ".join(args), p.returncode,
                                        p.stdout))
        return p.stdout

    def create(self):
        rng = self.rng
        kinds = ["internal", "backing", "pair", "raw", "far", "far-raw"]
        self.kind = self.a.kind or rng.choice(kinds)
        cluster = rng.choice([4096, 4096, 16384, 65536])
        self.sectors = 24 * cluster // SECTOR
        options = ["cluster_size=%d" % cluster]
        if cluster >= 16384 and rng.random() < 0.4:
            options.append("extended_l2=on")
        if self.kind in ("raw", "far-raw"):
            options.append("data_file=x.data,data_file_raw=on")
        elif self.kind in ("pair", "far"):
            options.append("data_file=x.data")
        backing = self.kind == "backing" or (
            self.kind in ("pair", "far") and rng.random() < 0.5)
        more = []
        if backing:
            with open(os.path.join(self.dir, "base.raw"), "wb") as f:
                for s in range(self.sectors):
                    f.write(stamp(INITIAL, s))
            more = ["-b", "base.raw", "-F", "raw"]
        self.run_tool("qemu-img", "create", "-q", "-f", "qcow2", "-o",
                      ",".join(options), *more, "x.qcow2",
                      str(self.sectors * SECTOR))
        self.history.append(["disk", [INITIAL if backing else 0]
                             * self.sectors])
        # Where everybody meets: in one cluster, and over a boundary.
        per = cluster // SECTOR
        self.spread = 8
        self.places = [rng.randrange(24) * per for i in range(3)]
        self.places += [rng.randrange(1, 24) * per - 4,
                        self.sectors - self.spread]
        self.flushing = rng.choice([0.3, 1, 3])
        self.may_forget = rng.random() < 0.8
        if self.kind.startswith("far"):
            with open(os.path.join(self.dir, "x.data"), "r+b") as f:
                f.truncate(self.sectors * SECTOR)
            self.start_far()

    def spawn(self, name, *command):
        sock = os.path.join(self.dir, name + ".sock")
        if os.path.exists(sock):
            os.unlink(sock)
        log = open(os.path.join(self.dir, name + ".log"), "a")
        p = subprocess.Popen(command, cwd=self.dir, stdout=log, stderr=log,
                             stdin=subprocess.DEVNULL,
                             env=dict(os.environ, TMPDIR=self.dir))
        log.close()
        deadline = time.monotonic() + 60
        while not os.path.exists(sock):
            if p.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(self.dir, name + ".log")) as f:
                    raise Wrong("%s does not start: %s" % (name,
                                                           f.read()[-1000:]))
            time.sleep(0.005)
        return p

    def start(self):
        more = []
        self.revive_far()
        self.strays = self.wrote = False
        log = os.path.join(self.dir, "s.log")
        self.log_seen = os.path.getsize(log) if os.path.exists(log) else 0
        if self.kind.startswith("far"):
            more = ["qcow2ext-data-file=nbd+unix:///?socket=%s/d.sock"
                    % self.dir]
        self.server = self.spawn(
            "s", "nbdkit", "-f", "-U", os.path.join(self.dir, "s.sock"),
            "--filter=" + self.a.filter, "file", "x.qcow2", *more)

    def start_far(self):
        # In a cache that nobody can read again when the server is dead.  That
        # of nbdkit 1.32 says of what it has not stored that it is a hole, if
        # there is one below.  And a server that comes back has to offer what it
        # did before.
        self.data_forgets = self.may_forget and self.rng.random() < 0.8
        self.far = self.spawn(
            "d", "nbdkit", "-f", "-U", os.path.join(self.dir, "d.sock"),
            *(["--filter=noextents"] if self.may_forget else []),
            *(["--filter=cache"] if self.data_forgets else []),
            "file", "x.data",
            *(["cache=%s" % self.a.far_cache] if self.data_forgets else []))

    def far_is_dead(self):
        return self.far is not None and self.far.poll() is not None

    def revive_far(self):
        """It may abort, too, when our server is killed (see Aborted)."""
        if not self.far_is_dead():
            return
        with open(os.path.join(self.dir, "d.log")) as f:
            if "raw_send_socket: Assertion" not in f.read():
                raise Wrong("the data server has ended")
        self.aborted += 1
        self.history.append(["data-lost" if self.data_forgets
                             else "data-kept"])
        self.start_far()

    # Requests, until so many have been answered.

    def poll(self, clients, timeout=60):
        poll, fds = select.poll(), {}
        for c in clients:
            if c.h is None:
                continue
            direction = c.h.aio_get_direction()
            mask = 0
            if direction & nbd.AIO_DIRECTION_READ:
                mask |= select.POLLIN
            if direction & nbd.AIO_DIRECTION_WRITE:
                mask |= select.POLLOUT
            if mask:
                fd = c.h.aio_get_fd()
                fds[fd] = c
                poll.register(fd, mask)
        got = poll.poll(timeout * 1000)
        if not got and timeout >= 60:
            # A process that is stopped while it aborts may stay.
            if self.says_aborted():
                self.server.kill()
                self.server.wait()
                self.aborted += 1
                raise Aborted()
            raise Wrong("no answer for a minute to %s"
                        % [list(c.flying) for c in clients])
        for fd, events in got:
            c = fds[fd]
            try:
                direction = c.h.aio_get_direction()
                if direction & nbd.AIO_DIRECTION_READ and events & (
                        select.POLLIN | select.POLLHUP | select.POLLERR):
                    c.h.aio_notify_read()
                elif events & select.POLLOUT:
                    c.h.aio_notify_write()
            except nbd.Error:
                c.vanish()
        answers, self.answers = self.answers, []
        for c, op, error in answers:
            c.answer(op, error)
        for c in clients:
            if c.h is not None and (c.h.aio_is_dead() or c.h.aio_is_closed()):
                c.vanish()

    def work(self, clients, count, drain):
        """Send so many requests; drain: and wait for all answers."""
        sent = 0
        errors = self.errors
        while True:
            for c in clients:
                while sent < count and c.h is not None \
                        and len(c.flying) < self.depth:
                    try:
                        c.send()
                    except nbd.Error:
                        c.vanish()
                    sent += 1
            if all(c.h is None for c in clients):
                return
            if sent >= count and not (drain and any(c.flying
                                                    for c in clients)):
                return
            # After a refusal everybody leaves.
            if self.errors > errors + 10:
                count = 0
            self.poll(clients)

    def says_aborted(self):
        with open(os.path.join(self.dir, "s.log")) as f:
            f.seek(self.log_seen)
            return "raw_send_socket: Assertion" in f.read()

    def has_aborted(self):
        if self.server.poll() is None:
            return False
        if self.says_aborted():
            self.aborted += 1
            return True
        raise Wrong("the server has ended with %d" % self.server.returncode)

    def how(self, clean):
        """An end of the server, or of a session.  One that has written nothing
        flushes nothing."""
        return "killed" if not clean else "stored" if self.wrote else "kept"

    def life(self):
        """From connecting until everybody has gone or the server has."""
        clients = [Client(self) for i in range(self.rng.randint(1, 5))]
        try:
            self.live(clients)
        except Aborted:
            for c in clients:
                c.vanish()
            self.history.append(["crash", "killed"])
            self.start()

    def live(self, clients):
        rng = self.rng
        self.depth = rng.choice([1, 2, 3])
        for c in clients:
            c.connect()
        poisoned = False
        for part in range(rng.choice([1, 1, 2, 3])):
            self.work(clients, rng.choice([20, 60, 200]), rng.random() < 0.5)
            how = rng.random()
            if how < 0.25:
                c = rng.choice(clients)
                c.vanish()
                c.connect()
            elif how < 0.6 and self.far:
                # What is on its way meets a server that is not there.
                self.far.kill()
                self.far.wait()
                self.kills += 1
                self.poll(clients, 0)
                self.history.append(["data-lost" if self.data_forgets
                                     else "data-kept"])
                time.sleep(rng.choice([0, 0.05, 0.3]))
                self.start_far()
                poisoned = True
        # After a loss nothing is written until the server is started again.
        end = rng.choice(["kill", "kill", "term"] if poisoned else
                         ["kill", "kill", "term", "leave", "vanish"])
        self.work(clients, rng.choice([5, 30]), end == "leave")
        if end in ("kill", "term"):
            self.server.send_signal(
                signal.SIGKILL if end == "kill" else signal.SIGTERM)
            self.kills += end == "kill"
            # Answers that are on their way count.  A server that is told to
            # end answers what it has and waits until clients go.
            while any(c.flying for c in clients if c.h is not None):
                self.poll(clients)
            for c in clients:
                c.vanish()
            code = self.server.wait(60)
            if end == "term" and code != 0 and self.has_aborted():
                poisoned = True
            self.history.append(["crash", self.how(
                end == "term" and not poisoned and not self.far_is_dead())])
            self.start()
        elif end == "leave":
            for c in clients:
                if c.h is not None:
                    try:
                        c.h.shutdown()
                        c.h = None
                    except nbd.Error:
                        pass
                c.vanish()
            # The image is closed if the server knows of nobody who is still
            # connected.
            if self.has_aborted():
                raise Aborted()
            if not self.strays and not self.far_is_dead():
                self.history.append(["crash", self.how(True)])
                self.wrote = False
        else:
            for c in clients:
                c.vanish()

    def stutter(self, over):
        """Processes that stop for a while, as on a busy machine."""
        rng = random.Random(self.seed)
        while not over.wait(rng.choice([0, 0.001, 0.01, 0.05, 0.2])):
            p = rng.choice([self.server, self.far])
            if p is None:
                continue
            p.send_signal(signal.SIGSTOP)
            over.wait(rng.choice([0.001, 0.01, 0.05, 0.2]))
            p.send_signal(signal.SIGCONT)

    def run(self):
        over = threading.Event()
        thread = threading.Thread(target=self.stutter, args=(over,))
        if self.a.stutter:
            thread.start()
        try:
            self.run_all()
        finally:
            over.set()
            if self.a.stutter:
                thread.join()
            for p in (self.server, self.far):
                if p:
                    p.kill()
                    p.wait()

    def run_all(self):
            self.create()
            self.start()
            for i in range(self.rng.randint(2, 6)):
                self.life()
            self.end()

    def end(self):
        """QEMU reads what is left."""
        self.server.terminate()
        clean = self.server.wait(60) == 0
        if not clean and not self.has_aborted():
            raise Wrong("the server ends with %d" % self.server.returncode)
        self.history.append(["crash", self.how(clean
                                               and not self.far_is_dead())])
        self.revive_far()
        if self.far:
            self.far.terminate()
            self.far.wait(60)
            self.far = None
            self.history.append(["data-lost" if self.data_forgets
                                 else "data-kept"])
        out = self.run_tool("qemu-img", "check", "x.qcow2", ok=(0, 3))
        if "Leaked" in out and not self.kills and not self.aborted:
            raise Wrong("qemu-img check: " + out)
        self.run_tool("qemu-img", "convert", "-O", "raw", "x.qcow2", "x.raw")
        with open(os.path.join(self.dir, "x.raw"), "rb") as f:
            blob = f.read()
        op = self.next
        self.history.append(["send", op, "read", 0, self.sectors, 0, False])
        self.history.append(["done", op, [
            whose(blob[s * SECTOR:(s + 1) * SECTOR], s)
            for s in range(self.sectors)]])


# --- lies ---

def lies(history, rng):
    """(what the lie is, a history that has it): each must be noticed."""
    send = {e[1]: (i, e) for i, e in enumerate(history) if e[0] == "send"}
    done = {e[1]: i for i, e in enumerate(history) if e[0] == "done"}
    breaks = [i for i, e in enumerate(history)
              if e[0] in ("disk", "crash", "data-lost", "data-kept")]
    flushes = [(i, done[e[1]]) for i, e in enumerate(history)
               if e[0] == "flush" and e[1] in done]
    reads = [op for op, (_, e) in send.items()
             if e[2] == "read" and op in done]
    rng.shuffle(reads)

    def changed(op, at, value):
        i = done[op]
        what = list(history[i][2])
        what[at] = value
        return history[:i] + [["done", op, what]] + history[i + 1:]

    def writes(sector, begin, end):
        """Sent and answered in between, one after the other."""
        found = []
        for op, (i, e) in send.items():
            if e[2] == "write" and e[3] <= sector < e[3] + e[4] \
               and begin < i and op in done and done[op] < end \
               and (not found or done[found[-1]] < i):
                found.append(op)
        return found

    for op in reads[:3]:
        sent, e = send[op]
        at = rng.randrange(e[4])
        sector, value = e[3] + at, history[done[op]][2][at]
        yield "another sector's bytes", changed(op, at, ALIEN)
        later = writes(sector, done[op], len(history))
        if later:
            yield "a value before it is written", changed(op, at, later[-1])
    for op in reads:
        sent, e = send[op]
        begin = max(b for b in breaks if b < sent)
        before = [(at, writes(e[3] + at, begin, sent)) for at in range(e[4])]
        before = [(at, w) for at, w in before if len(w) > 1]
        if before:
            at, w = rng.choice(before)
            yield "a value that was overwritten", changed(op, at, w[-2])
            break
    # After a crash, what was there before a flush.
    for op in reads:
        sent, e = send[op]
        end = max(b for b in breaks if b < sent)
        if history[end][0] != "crash":
            continue
        begin = max(b for b in breaks if b < end)
        for at in range(e[4]):
            w = writes(e[3] + at, begin, end)
            w = [x for x in w if any(done[x] < i and d < end
                                     for i, d in flushes)]
            if len(w) > 1 and history[done[op]][2][at] != w[-2]:
                yield "before a flush, after a crash", changed(op, at, w[-2])
                return


# --- what a checker must know ---

def write(op, sector=0, count=1, fua=False):
    return ["send", op, "write", sector, count, op, fua]


def read(op, sector=0, count=1):
    return ["send", op, "read", sector, count, 0, False]


def done(op, *values):
    return ["done", op, list(values) or None]


# (what it is, can it be explained, the history of a disk of one sector)
SELF_TEST = [
    ("a write", True, [write(2), done(2), read(3), done(3, 2)]),
    ("a lost write", False, [write(2), done(2), read(3), done(3, 0)]),
    ("a server that was killed forgets", True,
     [write(2), done(2), ["crash", "killed"], read(3), done(3, 0)]),
    ("but not what was flushed", False,
     [write(2), done(2), ["flush", 3], done(3), ["crash", "killed"],
      read(4), done(4, 0)]),
    ("a dead server does nothing any more", False,
     [write(2), ["lost", 2], ["crash", "kept"], ["data-kept"], read(3),
      done(3, 0), read(4), done(4, 2)]),
    ("a data server does what a dead server has sent to it", True,
     [write(2), ["lost", 2], ["crash", "killed"], read(3), done(3, 0),
      read(4), done(4, 2)]),
    ("until it is dead itself", False,
     [write(2), ["lost", 2], ["crash", "killed"], ["data-kept"], read(3),
      done(3, 0), read(4), done(4, 2)]),
    ("what was read of a write that a data server then forgot", True,
     [write(2), read(3), ["data-lost"], done(3, 2), done(2), read(4),
      done(4, 0)]),
    ("older bytes, once a data server has forgotten", True,
     [write(2), done(2), write(3), done(3), ["flush", 4], done(4),
      ["data-lost"], read(5), done(5, 2)]),
    ("which are not there any more in a new server", False,
     [write(2), done(2), write(3), done(3), ["flush", 4], done(4),
      ["data-lost"], ["crash", "killed"], read(5), done(5, 2)]),
    ("what was read of no write", False,
     [read(3), ["data-lost"], done(3, 2), read(4), done(4, 0)]),
    ("bytes of before and after a write under way", True,
     [write(2), read(3), done(3, [0, 2]), done(2)]),
    ("for good", False,
     [write(2), done(2), read(3), done(3, [0, 2])]),
    ("bytes of another write", False,
     [write(2), read(3), done(3, [0, 3]), done(2)]),
    ("a session that only flushes makes durable what it has read", False,
     [write(2), done(2), ["crash", "killed"], read(3), done(3, 2),
      ["flush", 4], done(4), ["data-lost"], ["crash", "killed"], read(5),
      done(5, 0)]),
    ("one that only reads does not", True,
     [write(2), done(2), ["crash", "killed"], read(3), done(3, 2),
      ["crash", "kept"], ["data-lost"], read(5), done(5, 0)]),
    ("one that was closed has stored all", False,
     [write(2), done(2), ["crash", "stored"], ["data-lost"],
      ["crash", "killed"], read(5), done(5, 0)]),
]


def self_test():
    failed = 0
    for what, possible, history in SELF_TEST:
        history = [["disk", [0]]] + history
        try:
            explained = check(json.loads(json.dumps(history)))[1] == 0
        except Wrong:
            explained = False
        if explained != possible:
            print("FAIL: %s: %s" % (what, "explained" if explained
                                    else "not explained"))
            failed += 1
    blob = bytearray(stamp(2, 5))
    for value, expected in ((blob, 2), (bytes(256) + blob[256:], [0, 2]),
                            (stamp(3, 5)[:256] + blob[256:], [2, 3]),
                            (bytes(8) + blob[8:], [0, 2]),
                            (blob[:8] + bytes(8) + blob[16:], [0, 2]),
                            (stamp(3, 6)[:256] + blob[256:], ALIEN)):
        if whose(bytes(value), 5) != expected:
            print("FAIL: %s is taken for %s" % (expected, whose(value, 5)))
            failed += 1
    return failed


def try_lies(history, rng, tally):
    for what, lying in lies(history, rng):
        told, noticed = tally.get(what, (0, 0))
        try:
            check(lying)
        except Wrong:
            noticed += 1
        tally[what] = (told + 1, noticed)


def main():
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("filter", nargs="?", help="nbdkit-qcow2ext-filter.so")
    p.add_argument("--check", metavar="FILE")
    p.add_argument("--self-test", action="store_true")
    p.add_argument("--seconds", type=int, default=120)
    p.add_argument("--seed", type=int)
    p.add_argument("--rounds", type=int)
    p.add_argument("--stutter", action="store_true", help="stop the servers "
                   "for moments")
    p.add_argument("--dir", help="where to work")
    p.add_argument("--kind", help="of image: internal, backing, pair, raw, "
                   "far, far-raw")
    p.add_argument("--far-cache", default="writeback", help="'unsafe': the "
                   "data server lies about flushes, which must be noticed")
    p.add_argument("--lies", action="store_true")
    a = p.parse_args()
    if a.self_test:
        sys.exit(1 if self_test() else 0)
    if a.dir:
        a.dir = os.path.abspath(a.dir)
    if a.check:
        with open(a.check) as f:
            history = [json.loads(line) for line in f]
        try:
            print("fine; at most %d ways for a sector, too many for %d"
                  % check(history))
        except Wrong as e:
            print(e)
            print(explain(history, int(str(e).split()[1].rstrip(":"))))
            sys.exit(1)
        return
    a.filter = os.path.abspath(a.filter)
    if a.seed is None:
        a.seed = random.SystemRandom().randrange(10 ** 9)
    print("clients.py: seeds from %d" % a.seed, flush=True)
    begin, rounds, failed = time.monotonic(), 0, 0
    events = kills = aborted = errors = most = given_up = 0
    kinds, tally = {}, {}
    while (rounds < a.rounds if a.rounds
           else time.monotonic() - begin < a.seconds):
        directory = tempfile.mkdtemp(prefix="q2h-", dir=a.dir)
        w = World(a.seed + rounds, a, directory)
        rounds += 1
        wrong = None
        try:
            w.run()
            ways, n = check(w.history)
            most = max(most, ways)
            given_up += n
        except (Wrong, OSError, nbd.Error,
                subprocess.SubprocessError) as e:
            wrong = "%s: %s" % (type(e).__name__, e)
        events += len(w.history)
        kills += w.kills
        aborted += w.aborted
        errors += w.errors
        kinds[w.kind] = kinds.get(w.kind, 0) + 1
        if wrong:
            failed += 1
            with open(os.path.join(directory, "history"), "w") as f:
                for e in w.history:
                    f.write(json.dumps(e) + "\n")
            print("FAIL: seed %d (%s): %s\nkept: %s"
                  % (w.seed, w.kind, wrong, directory), flush=True)
            if failed == 5:
                break
        else:
            shutil.rmtree(directory)
            if a.lies and not n:
                try_lies(w.history, w.rng, tally)
    print("clients.py: %d rounds (%s), %d events, %d servers killed, nbdkit "
          "aborted by itself %d times, %d requests refused or without an answer, at most %d ways for a "
          "sector, too many for %d, %d failed, %d seconds"
          % (rounds, ", ".join("%d %s" % (n, k)
                               for k, n in sorted(kinds.items())),
             events, kills, aborted, errors, most, given_up, failed,
             time.monotonic() - begin))
    for what, (told, noticed) in sorted(tally.items()):
        print("clients.py: lies: %s: %d of %d noticed" % (what, noticed, told))
        failed += noticed != told
    if a.lies and len(tally) < 4:
        print("clients.py: not every lie was told")
        failed += 1
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
