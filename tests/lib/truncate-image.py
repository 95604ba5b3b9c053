#!/usr/bin/python3
"""Cut an image shorter and shorter and read it with nbdkit each time.

  truncate-image.py FILTER IMAGE REFERENCE STEP [NBDKIT-ARGS...]

Every read must give the right data or an error.  The one exception: in a
cluster that the end of the file cuts short, what is missing reads as zeros.
nbdkit must end by itself each time, not by a signal.
"""

import os
import signal
import socket
import subprocess
import sys

import nbd

BLOCK = 4096


def main():
    so, image, reference, step = sys.argv[1:5]
    args = sys.argv[5:]
    with open(reference, "rb") as f:
        ref = f.read()
    whole = os.stat(image).st_size
    served = refused = errors = 0
    cuts = list(range(0, 600, 56)) + list(range(512, whole, int(step)))
    for cut in sorted(set(cuts + [c + d for c in cuts for d in (-1, 1)
                                  if c % 4096 == 0]), reverse=True):
        if cut < 0:
            continue
        os.truncate(image, cut)
        ours, theirs = socket.socketpair()
        p = subprocess.Popen(
            ["nbdkit", "-r", "-s", "--filter=" + so, "file", image] + args,
            stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
        theirs.close()
        h = nbd.NBD()
        try:
            h.connect_socket(ours.detach())
            size = h.get_size()
        except nbd.Error:
            refused += 1
            size = 0
        if size not in (0, len(ref)):
            sys.exit("cut at %d: size is %d" % (cut, size))
        if size:
            served += 1
        for offset in range(0, size, BLOCK):
            want = ref[offset:offset + BLOCK]
            try:
                got = bytes(h.pread(len(want), offset))
            except nbd.Error as e:
                if e.errnum != 5:
                    sys.exit("cut at %d: read at %d: %s" % (cut, offset, e))
                errors += 1
                continue
            if got != want:
                same = len(os.path.commonprefix([got, want]))
                if any(got[same:]) or cut == whole:
                    sys.exit("cut at %d: wrong data at %d"
                             % (cut, offset + same))
        if size:
            try:
                h.shutdown()
            except nbd.Error:
                pass
        del h
        try:
            err = p.communicate(timeout=30)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            p.kill()
            sys.exit("cut at %d: nbdkit does not end" % cut)
        if p.returncode < 0:
            sys.exit("cut at %d: nbdkit died: %s\n%s"
                     % (cut, signal.Signals(-p.returncode).name, err))
        if not size and not err:
            sys.exit("cut at %d: refused without a message" % cut)
    print("%d served, %d refused, %d read errors" % (served, refused, errors))
    if not served or not refused or not errors:
        sys.exit("that was no test")


if __name__ == "__main__":
    main()
