#!/usr/bin/python3
"""Serve images with random damage in their metadata.

  mutate-image.py FILTER IMAGE COUNT [--seed N] [NBDKIT-ARGS...]

Each time some bytes of the header or the tables (what mkimage.py puts before
the data with --tables-first, and the rest of the file now and then) are
changed; then the disk is read and its map asked for.  nbdkit may refuse or
fail reads, but it must not crash, hang, or take a lot of memory.
"""

import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys

import nbd

LIMIT_KIB = 400 << 10    # of peak memory, caches and sanitizers included


def damage(rng, blob, tables):
    blob = bytearray(blob)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        where = rng.random()
        if where < 0.4:
            # A field of the header or a header extension.
            at = rng.choice((4, 8, 16, 20, 24, 32, 36, 40, 48, 56, 60, 64, 72,
                             80, 88, 96, 100, 104, 112, 116, 120, 128))
            size = rng.choice((4, 8))
        elif where < 0.9:
            at = rng.randrange(0, tables, 8)
            size = 8
        else:
            at, size = rng.randrange(len(blob) - 8), rng.choice((1, 2, 4, 8))
        old = int.from_bytes(blob[at:at + size], "big")
        top = 1 << size * 8
        new = rng.choice((
            lambda: rng.randrange(top), lambda: old ^ 1 << rng.randrange(
                size * 8), lambda: old + rng.choice((-1, 1, 512, -512)),
            lambda: 0, lambda: top - 1, lambda: top >> 1,
            lambda: rng.randrange(0, len(blob) * 2, 512),
            lambda: rng.randrange(0, len(blob), 512) | 1 << 63,
            lambda: rng.randrange(top) | 1 << 62,
            lambda: 1 << rng.randrange(size * 8)))()
        blob[at:at + size] = (new % top).to_bytes(size, "big")
    return bytes(blob)


def main():
    so, image, count = sys.argv[1:4]
    args = sys.argv[4:]
    seed = random.SystemRandom().randrange(1 << 32)
    if args[:1] == ["--seed"]:
        seed, args = int(args[1]), args[2:]
    with open(image, "rb") as f:
        good = f.read()
    cluster = 1 << struct.unpack(">I", good[20:24])[0]
    tables = min(len(good), max(4096, 6 * cluster))
    served = 0
    for i in range(int(count)):
        # Each with a seed of its own, so that one can be had again.
        print("mutate-image: --seed %d" % (seed + i), flush=True)
        bad = damage(random.Random(seed + i), good, tables)
        with open(image, "wb") as f:
            f.write(bad)
        ours, theirs = socket.socketpair()
        p = subprocess.Popen(
            ["nbdkit", "-r", "-s", "--filter=" + so, "file", image] + args,
            stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
        theirs.close()
        signal.alarm(60)
        h = nbd.NBD()
        h.add_meta_context("base:allocation")
        try:
            h.connect_socket(ours.detach())
            size = h.get_size()
            served += 1
        except nbd.Error:
            size = 0
        try:
            for at in range(0, min(size, 2 << 20), 65536):
                try:
                    h.pread(min(65536, size - at), at)
                except nbd.Error as e:
                    if e.errnum != 5:
                        raise
            if size:
                try:
                    h.block_status(min(size, 0xffffff00), 0,
                                   lambda *args: 0)
                except nbd.Error as e:
                    if e.errnum != 5:
                        raise
                h.shutdown()
        except nbd.Error as e:
            print(e)
        del h
        err = p.communicate()[1].decode(errors="replace")
        signal.alarm(0)
        if p.returncode not in (0, 1):
            sys.exit("nbdkit ended with %d\n%s" % (p.returncode, err))
        if not size and not err and p.returncode:
            sys.exit("refused without a message")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print("%d of %s served, peak memory %d KiB" % (served, count, peak))
    if peak > LIMIT_KIB:
        sys.exit("too much memory")
    with open(image, "wb") as f:
        f.write(good)


if __name__ == "__main__":
    main()
