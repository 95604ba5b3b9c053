#!/usr/bin/python3
"""Load on a server that is about to end, and what must be left of it.

  load.py client URI NUMBER SEED DEPTH [clean]
  load.py judge RAW [BITMAP BEFORE]

Each of three clients has its own third of the disk, keeps up to DEPTH requests
in flight, flushes, and notes what it is sure of (in noteNUMBER), until the
connection breaks.  What was sent after the last flush may be there or not,
sector by sector; with "clean", what was acknowledged is there as well.

The judge compares the notes with a raw image of the disk.  BITMAP is what
'nbdinfo --map --json' says of a bitmap that was empty when the disk was BEFORE:
all that has changed since must be dirty.
"""

import errno
import json
import os
import pickle
import random
import sys

import nbd

CLIENTS = 3
SECTOR = 512




class Client:
    def __init__(self, uri, number, seed, depth, clean):
        self.rng = random.Random("%s %d" % (seed, number))
        self.number = number
        self.depth = depth
        self.clean = clean
        self.h = nbd.NBD()
        self.h.connect_uri(uri)
        self.third = self.h.get_size() // CLIENTS // SECTOR
        self.first = number * self.third
        raw = self.read(0, self.third)
        # For each sector all that it may have.
        self.may = [{raw[i:i + SECTOR]} for i in range(0, len(raw), SECTOR)]

    def read(self, at, n):
        return bytes(self.h.pread(n * SECTOR, (self.first + at) * SECTOR))

    def save(self):
        with open("note%d.new" % self.number, "wb") as f:
            pickle.dump((self.first, self.may), f)
        os.rename("note%d.new" % self.number, "note%d" % self.number)

    def choose(self):
        """Requests that have no sector in common."""
        batch, taken = [], set()
        for _ in range(self.rng.randint(2, 12)):
            n = int(200 ** self.rng.random())
            at = self.rng.randrange(self.third - n)
            kind = self.rng.choice(["write", "write", "zero", "trim"])
            # It can be compressed, for those servers that do.
            blob = b"".join(self.rng.randbytes(SECTOR // 4) * 4
                            for _ in range(n)) if kind == "write" \
                else bytes(SECTOR * n)
            if taken.isdisjoint(range(at, at + n)):
                taken.update(range(at, at + n))
                batch.append((kind, at, n, blob))
        return batch

    def send(self, kind, at, n, blob):
        offset = (self.first + at) * SECTOR
        if kind == "write":
            buf = nbd.Buffer.from_bytearray(bytearray(blob))
            return self.h.aio_pwrite(buf, offset), buf
        if kind == "zero":
            return self.h.aio_zero(n * SECTOR, offset), None
        return self.h.aio_trim(n * SECTOR, offset), None

    def do(self, batch):
        todo, flying = list(batch), []
        while todo or flying:
            while todo and len(flying) < self.depth:
                flying.append(self.send(*todo.pop(0)))
            self.h.poll(-1)
            flying = [f for f in flying
                      if not self.h.aio_command_completed(f[0])]

    def round(self):
        batch = self.choose()
        for _, at, n, blob in batch:
            for j in range(n):
                self.may[at + j].add(blob[j * SECTOR:(j + 1) * SECTOR])
        # The end may come while this is done.
        self.save()
        self.do(batch)
        sure = {}
        for kind, at, n, blob in batch:
            if kind == "trim":
                blob = self.read(at, n)
            for j in range(n):
                sure[at + j] = {blob[j * SECTOR:(j + 1) * SECTOR]}
        if not self.clean:
            self.h.flush()
        for i, blob in sure.items():
            self.may[i] = blob
        self.save()
        if self.clean and self.rng.random() < 0.3:
            self.h.flush()

    def run(self):
        self.save()
        try:
            while True:
                self.round()
        except nbd.Error as e:
            # A server that ends says so, or nothing.
            if not self.h.aio_is_dead() and not self.h.aio_is_closed() \
               and e.errnum not in (errno.ESHUTDOWN, errno.ENOTCONN):
                sys.exit("client %d: %s" % (self.number, e))


def read_file(name):
    with open(name, "rb") as f:
        return f.read()


def judge(raw, bitmap=None, before=None):
    now = read_file(raw)
    for number in range(CLIENTS):
        with open("note%d" % number, "rb") as f:
            first, may = pickle.load(f)
        for i, allowed in enumerate(may):
            at = (first + i) * SECTOR
            if now[at:at + SECTOR] not in allowed:
                sys.exit("wrong data at %#x, %d allowed" % (at, len(allowed)))
    if bitmap is None:
        return
    was = read_file(before)
    for extent in json.loads(read_file(bitmap)):
        if extent["type"] == 0:
            continue
        a, b = extent["offset"], extent["offset"] + extent["length"]
        if was[a:b] != now[a:b]:
            sys.exit("the bitmap lacks a change in %#x-%#x" % (a, b))


if sys.argv[1] == "client":
    Client(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]),
           len(sys.argv) > 6).run()
else:
    judge(*sys.argv[2:])
