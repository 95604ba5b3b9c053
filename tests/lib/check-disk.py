#!/usr/bin/python3
"""Compare what an NBD server serves with a reference file.

  check-disk.py URI REFERENCE [options]

Size in bytes; random unaligned reads, several in flight on each of several
connections at once; block status: complete, nothing but data, zero and
hole+zero, and all that is said to read as zeros is zero in the reference.
With --qemu-map (the output of "qemu-img map --output=json") it must be the
same map, or with --within our data must lie within QEMU's.
"""

import argparse
import json
import os
import random
import sys
import threading

import nbd

MAX_REQUEST = 32 << 20


def die(msg):
    sys.exit("check-disk: " + msg)


class Reference:
    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.fd).st_size

    def read(self, offset, length):
        out = os.pread(self.fd, length, offset)
        while len(out) < length:
            more = os.pread(self.fd, length - len(out), offset + len(out))
            if not more:
                break
            out += more
        return out


def connect(uri):
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    h.connect_uri(uri)
    return h


def random_reads(h, ref, rng, count, longest, failures):
    """COUNT reads with up to eight in flight."""
    flying = []
    try:
        while count or flying:
            while count and len(flying) < 8:
                count -= 1
                length = 1 + int(longest ** rng.random())
                length = min(length, ref.size, h.get_block_size(
                    nbd.SIZE_MAXIMUM) or MAX_REQUEST)
                offset = rng.randrange(ref.size - length + 1)
                if rng.random() < 0.1:
                    offset = ref.size - length
                # A filter above may want whole blocks.
                block = max(1, h.get_block_size(nbd.SIZE_MINIMUM))
                offset -= offset % block
                length = min(length + -length % block, ref.size - offset)
                buf = nbd.Buffer(length)
                flying.append((h.aio_pread(buf, offset), offset, length,
                               buf))
            h.poll(-1)
            for item in list(flying):
                cookie, offset, length, buf = item
                if not h.aio_command_completed(cookie):
                    continue
                flying.remove(item)
                if buf.to_bytearray() != ref.read(offset, length):
                    failures.append("wrong data in %d bytes at %d"
                                    % (length, offset))
                    return
    except (nbd.Error, OSError) as e:
        failures.append("%s (in flight: %s)"
                        % (e, [f[1:3] for f in flying]))


def extents(h, size, offset=0, length=None):
    """[(offset, length, flags)] of the whole range, runs merged."""
    end = size if length is None else offset + length
    out = []
    while offset < end:
        reply = []

        def cb(context, at, entries, err):
            if context == "base:allocation":
                reply.extend(zip(entries[::2], entries[1::2]))
        h.block_status(min(end - offset, 0xfffff000), offset, cb)
        if not reply:
            die("empty block status reply at %d" % offset)
        before = None
        for n, flags in reply:
            if flags not in (0, 2, 3):
                die("flags %d in the extent at %d" % (flags, offset))
            if flags == before:
                die("extents at %d are not merged" % offset)
            before = flags
            n = min(n, end - offset)
            if out and out[-1][2] == flags:
                out[-1] = (out[-1][0], out[-1][1] + n, flags)
            else:
                out.append((offset, n, flags))
            offset += n
    return out


def is_zero(ref, offset, length):
    while length:
        n = min(length, 1 << 20)
        blob = ref.read(offset, n)
        if blob.count(0) != n:
            return False
        offset += n
        length -= n
    return True


def qemu_map(path):
    """The same from the output of qemu-img map."""
    out = []
    with open(path) as f:
        for e in json.load(f):
            flags = (0 if e["data"] else 1) | (2 if e["zero"] else 0)
            if flags == 1:
                die("QEMU's map: neither data nor zero")
            if out and out[-1][2] == flags \
               and out[-1][0] + out[-1][1] == e["start"]:
                out[-1] = (out[-1][0], out[-1][1] + e["length"], flags)
            else:
                out.append((e["start"], e["length"], flags))
    return out


def outside(ours, theirs):
    """The first range that is data here and not there."""
    data = [(o, o + n) for o, n, f in theirs if not f & 1]
    i = 0
    for o, n, f in ours:
        if f & 1:
            continue
        end = o + n
        while o < end:
            while i < len(data) and data[i][1] <= o:
                i += 1
            if i == len(data) or data[i][0] > o:
                return o
            o = data[i][1]
        i = max(0, i - 1)
    return None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("uri")
    p.add_argument("reference")
    p.add_argument("--connections", type=int, default=4)
    p.add_argument("--reads", type=int, default=100,
                   help="by each connection")
    p.add_argument("--longest", type=int, default=1 << 20)
    p.add_argument("--seed", type=int)
    p.add_argument("--qemu-map", metavar="JSON")
    p.add_argument("--within", action="store_true")
    p.add_argument("--no-map", action="store_true")
    a = p.parse_args()
    seed = a.seed if a.seed is not None \
        else random.SystemRandom().randrange(1 << 32)
    print("check-disk: --seed %d" % seed, flush=True)

    ref = Reference(a.reference)
    handles = [connect(a.uri) for _ in range(a.connections)]
    for h in handles:
        if h.get_size() != ref.size:
            die("size is %d, should be %d" % (h.get_size(), ref.size))
    failures = []
    if ref.size:
        threads = [threading.Thread(target=random_reads, args=(
            h, ref, random.Random(seed + i), a.reads, a.longest, failures))
            for i, h in enumerate(handles)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    if failures:
        die("; ".join(failures))

    if not a.no_map and ref.size:
        h = handles[0]
        if not h.can_meta_context("base:allocation"):
            die("no block status")
        ours = extents(h, ref.size)
        for o, n, flags in ours:
            if flags & 2 and not is_zero(ref, o, n):
                die("said to be zero, but is not: %d bytes at %d" % (n, o))
        # The same through windows that begin and end anywhere.
        rng = random.Random(seed)
        for _ in range(20):
            n = min(1 + int(ref.size ** rng.random()), ref.size)
            o = rng.randrange(ref.size - n + 1)
            want = [(max(s, o), min(s + m, o + n) - max(s, o), f)
                    for s, m, f in ours if s < o + n and s + m > o]
            got = extents(h, ref.size, o, n)
            if got != want:
                die("map of %d bytes at %d: %s, expected %s"
                    % (n, o, got, want))
        if a.qemu_map:
            theirs = qemu_map(a.qemu_map)
            if a.within:
                at = outside(ours, theirs)
                if at is not None:
                    die("data at %d, which QEMU does not call data" % at)
            elif ours != theirs:
                diff = [x for x in zip(ours, theirs) if x[0] != x[1]]
                die("map differs from QEMU's (offset, length, flags): "
                    "first %s, %d and %d entries"
                    % (diff[:1], len(ours), len(theirs)))
    for h in handles:
        h.shutdown()


if __name__ == "__main__":
    main()
