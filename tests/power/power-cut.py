#!/usr/bin/python3
"""A power cut under a real file system: is what was flushed there?

    power-cut.py FILTER RECORD-PLUGIN FILE-SYSTEM [--seed N] [--rounds N]

FILE-SYSTEM is ext4, xfs or btrfs.  It lies on a disk that keeps a log of what
is written and flushed (record-plugin.c, through nbdfuse and a loop device), and
on it lie an image, and perhaps its data file, to which a server of ours writes
for a client.  Then the disk is built again as it was at each flush, and with
some of what was written after that, and mounted.  In each of these states

  - qemu-img check finds no errors, though perhaps leaked clusters;
  - each sector that QEMU reads is what was last flushed, when the client had
    its answer by then, or something that was written to it later;
  - so it is in a raw data file by itself.

As root.  What is mounted is in a namespace of its own.
"""

import argparse
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import nbd

SECTOR = 512
PART = 1 << 16
# mkfs, its options, the smallest disk.
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], [], 48 << 20),
    "xfs": (["mkfs.xfs", "-q", "-f"], ["-o", "nouuid"], 320 << 20),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], [], 128 << 20),
}


class Wrong(Exception):
    pass


def run(*args, ok=(0,)):
    p = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       text=True, timeout=300)
    if p.returncode not in ok:
        raise Wrong("%s: %d: %s" % (" ".join(map(str, args)), p.returncode,
                                    p.stdout))
    return p.stdout


def stamp(who, sector):
    return struct.pack("<QQ", who, sector) * (SECTOR // 16)


def whose(blob, sector):
    """0: zeros; -1: nobody's"""
    if not any(blob):
        return 0
    who, at = struct.unpack_from("<QQ", blob)
    return who if at == sector and blob == stamp(who, sector) else -1


class Session:
    """Records what is done to a disk, and what a client was told."""

    def __init__(self, a, rng, directory):
        self.a, self.rng, self.dir = a, rng, directory
        self.mkfs, self.mount_options, self.size = FILE_SYSTEMS[a.fs]
        self.log = os.path.join(directory, "log")
        self.undo = []
        # For each sector, (value, position of the log when it was sent), and
        # what is durable from which position on: (position, [index]).
        self.versions, self.flushed = [], []

    def position(self):
        return os.stat(self.log).st_size

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def wait_for(self, path, process):
        deadline = time.monotonic() + 60
        while not os.path.exists(path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Wrong("no %s" % path)
            time.sleep(0.01)

    def start_disk(self):
        sock = self.path("disk.sock")
        disk = subprocess.Popen(
            ["nbdkit", "-f", "-U", sock, self.a.plugin, "log=" + self.log,
             "size=%d" % self.size], stdin=subprocess.DEVNULL)
        self.undo.append(lambda: (disk.terminate(), disk.wait()))
        self.wait_for(sock, disk)
        os.mkdir(self.path("fuse"))
        device = self.path("fuse", "nbd")
        fuse = subprocess.Popen(
            ["nbdfuse", self.path("fuse"),
             "nbd+unix:///?socket=" + sock], stdin=subprocess.DEVNULL)
        self.undo.append(lambda: (run("umount", "-l", self.path("fuse"),
                                      ok=(0, 1, 32)), fuse.wait()))
        self.wait_for(device, fuse)
        self.loop = run("losetup", "--find", "--show", device).strip()
        self.undo.append(lambda: run("losetup", "-d", self.loop, ok=(0, 1)))
        run(*self.mkfs, self.loop)
        os.mkdir(self.path("mnt"))
        run("mount", self.loop, self.path("mnt"))
        self.undo.append(lambda: run("umount", "-l", self.path("mnt"),
                                     ok=(0, 1, 32)))

    def make_image(self):
        rng = self.rng
        self.cluster = rng.choice([4096, 16384, 65536])
        self.sectors = 40 * self.cluster // SECTOR
        self.kind = rng.choice(["internal", "pair", "raw"])
        options = "cluster_size=%d" % self.cluster
        if self.kind != "internal":
            options += ",data_file=x.data,data_file_raw=%s" % (
                "on" if self.kind == "raw" else "off")
        os.chdir(self.path("mnt"))
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options,
            "x.qcow2", self.sectors * SECTOR)
        run("sync", "-f", "x.qcow2")
        self.begin = self.position()
        self.versions = [[(0, 0)] for _ in range(self.sectors)]
        self.flushed = [(self.begin, [0] * self.sectors)]

    def change(self, h, who):
        rng = self.rng
        per = self.cluster // SECTOR
        first = rng.randrange(self.sectors)
        if rng.random() < 0.5:
            first = first // per * per
        count = min(rng.choice([1, 1, 3, per, 2 * per, 5 * per]),
                    self.sectors - first)
        kind = rng.choice(["write"] * 5 + ["zero", "trim"])
        at, n = first * SECTOR, count * SECTOR
        sent = self.position()
        value = who if kind == "write" else 0
        for s in range(first, first + count):
            self.versions[s].append((value, sent))
        if kind == "write":
            h.pwrite(b"".join(stamp(who, s)
                              for s in range(first, first + count)), at)
        elif kind == "zero":
            h.zero(n, at)
        else:
            h.trim(n, at)
            blob = h.pread(n, at)
            for i, s in enumerate(range(first, first + count)):
                now = whose(blob[i * SECTOR:(i + 1) * SECTOR], s)
                if now != 0:    # not trimmed
                    self.versions[s].append((now, sent))

    def work(self):
        sock = self.path("s.sock")
        server = subprocess.Popen(
            ["nbdkit", "-f", "-U", sock, "--filter=" + self.a.filter, "file",
             "x.qcow2"], stdin=subprocess.DEVNULL,
            env=dict(os.environ, LD_PRELOAD=self.a.preload or ""))
        try:
            self.wait_for(sock, server)
            h = nbd.NBD()
            deadline = time.monotonic() + 10
            while True:
                try:
                    h.connect_uri("nbd+unix:///?socket=" + sock)
                    break
                except nbd.Error:
                    if time.monotonic() > deadline:
                        raise
                    h = nbd.NBD()
                    time.sleep(0.01)
            for who in range(1, self.a.requests):
                self.change(h, who)
                if self.rng.random() < 0.2:
                    now = [len(v) - 1 for v in self.versions]
                    h.flush()
                    self.flushed.append((self.position(), now))
                elif self.rng.random() < 0.05:
                    # What the kernel writes by itself may come in any order.
                    run("sync", "-f", "x.qcow2")
            now = [len(v) - 1 for v in self.versions]
            h.shutdown()
            self.flushed.append((self.position(), now))
        finally:
            server.terminate()
            server.wait()
            os.chdir("/")

    def stop(self):
        while self.undo:
            self.undo.pop()()


# --- the disk again ---

class Replay:
    def __init__(self, session):
        self.s = session
        self.states = 0
        self.share = 1
        self.state = session.path("state")
        with open(session.log, "rb") as f:
            self.log = f.read()
        self.ops = []           # (kind, offset, length, data at, end of it)
        pos = 0
        while pos < len(self.log):
            kind = self.log[pos:pos + 1]
            offset, length = struct.unpack_from(">QI", self.log, pos + 1)
            data = pos + 13
            pos = data + (length if kind == b"W" else 0)
            self.ops.append((kind, offset, length, data, pos))
        self.base = bytearray(session.size)
        # Parts of the disk that ever hold anything.
        self.parts = sorted({at for kind, offset, length, _, _ in self.ops
                             if kind == b"W"
                             for at in range(offset // PART,
                                             (offset + length - 1) // PART
                                             + 1)})
        self.mnt = session.path("again")
        os.mkdir(self.mnt)

    def apply(self, disk, op):
        kind, offset, length, data, _ = op
        if kind == b"W":
            disk[offset:offset + length] = self.log[data:data + length]
        elif kind in (b"Z", b"T"):
            disk[offset:offset + length] = bytes(length)

    def run(self):
        """At each flush, what is after it to be there or not."""
        i, rng = 0, self.s.rng
        flushes = sum(op[0] == b"F" for op in self.ops)
        self.share = self.s.a.states / (3 * flushes) if self.s.a.states else 1
        while i < len(self.ops):
            j = i
            while j < len(self.ops) and self.ops[j][0] != b"F":
                j += 1
            # Operations i to j - 1 are between two flushes.
            between = self.ops[i:j]
            if i and self.ops[i - 1][4] >= self.s.begin:
                durable = self.ops[i - 1][4]
                self.check(self.base, durable, durable, "at a flush")
                for k in range(2 if between else 0):
                    cut = rng.randint(1, len(between))
                    disk = bytearray(self.base)
                    share = rng.choice([0.5, 0.9, 1])
                    for op in between[:cut]:
                        if rng.random() < share:
                            self.apply(disk, op)
                    # A client's flush ends with the disk's, so that nothing
                    # of what came after that is durable.
                    self.check(disk, durable, between[cut - 1][4],
                               "after a flush, with a part of %d writes" % cut)
            for op in between:
                self.apply(self.base, op)
            i = j + 1
        self.check(self.base, self.ops[-1][4], self.ops[-1][4], "at the end")

    def check(self, disk, durable, cut, what):
        if self.s.rng.random() > self.share:
            return
        self.states += 1
        with open(self.state, "wb") as f:
            for part in self.parts:
                f.seek(part * PART)
                f.write(disk[part * PART:(part + 1) * PART])
            f.truncate(len(disk))
        loop = run("losetup", "--find", "--show", self.state).strip()
        try:
            run("mount", *self.s.mount_options, loop, self.mnt)
            try:
                self.check_image(durable, cut, what)
            finally:
                os.chdir("/")
                run("umount", self.mnt)
        finally:
            run("losetup", "-d", loop)

    def check_image(self, durable, cut, what):
        s = self.s
        os.chdir(self.mnt)
        what = "%s (log position %d of %d)" % (what, durable, len(self.log))
        out = run("qemu-img", "check", "-f", "qcow2", "x.qcow2", ok=(0, 3, 2))
        if "ERROR" in out:
            raise Wrong("%s: %s" % (what, out))
        raw = s.path("read.raw")
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "x.qcow2", raw)
        index = [f for position, f in s.flushed if position <= durable][-1]
        files = [("the disk", raw)]
        if s.kind == "raw":
            files.append(("the raw data file", "x.data"))
        for name, path in files:
            with open(path, "rb") as f:
                blob = f.read().ljust(s.sectors * SECTOR, b"\0")
            for i in range(s.sectors):
                value = whose(blob[i * SECTOR:(i + 1) * SECTOR], i)
                v = s.versions[i]
                allowed = {v[index[i]][0]} | {
                    x for x, sent in v[index[i] + 1:] if sent <= cut}
                if value not in allowed:
                    raise Wrong("%s: sector %d of %s is %d, may be %s"
                                % (what, i, name, value, sorted(allowed)))


def one(a, seed):
    directory = tempfile.mkdtemp(prefix="q2p-", dir=a.dir)
    rng = random.Random("power-cut-%s-%d" % (a.fs, seed))
    s = Session(a, rng, directory)
    try:
        try:
            s.start_disk()
            s.make_image()
            s.work()
        finally:
            s.stop()
        r = Replay(s)
        r.run()
        flushes = sum(op[0] == b"F" and op[4] > s.begin for op in r.ops)
        # A flush of the client's is one of the disk's.
        if flushes < len(s.flushed) - 2:
            raise Wrong("%d flushes of the client's were %d of the disk's"
                        % (len(s.flushed) - 1, flushes))
        print("power-cut.py: %s, seed %d, %s, clusters of %d: %d flushes of "
              "the client's, %d of the disk's, %d states: fine"
              % (a.fs, seed, s.kind, s.cluster, len(s.flushed) - 1, flushes,
                 r.states), flush=True)
        return True, r.states
    except Wrong as e:
        print("FAIL: %s, seed %d, %s, clusters of %d: %s"
              % (a.fs, seed, getattr(s, "kind", "?"),
                 getattr(s, "cluster", 0), e), flush=True)
        return False, 0
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main():
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("filter")
    p.add_argument("plugin")
    p.add_argument("fs", choices=sorted(FILE_SYSTEMS))
    p.add_argument("--seed", type=int)
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--requests", type=int, default=60)
    p.add_argument("--states", type=int, help="look at about so many, not at "
                   "all")
    p.add_argument("--preload", help="a library for the server, for instance "
                   "one that does not flush, which must be noticed")
    p.add_argument("--dir", help="where to work")
    p.add_argument("--in-namespace", action="store_true",
                   help=argparse.SUPPRESS)
    a = p.parse_args()
    if not a.in_namespace:
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private",
                              sys.executable, *sys.argv, "--in-namespace"])
    a.filter, a.plugin = map(os.path.abspath, (a.filter, a.plugin))
    if a.seed is None:
        a.seed = random.SystemRandom().randrange(10 ** 9)
    failed = states = 0
    for i in range(a.rounds):
        fine, n = one(a, a.seed + i)
        failed += not fine
        states += n
    print("power-cut.py: %s: %d rounds, %d states, %d failed"
          % (a.fs, a.rounds, states, failed))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
