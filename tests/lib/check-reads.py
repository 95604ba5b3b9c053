#!/usr/bin/python3
"""Make single reads and say what each must give.

  check-reads.py URI OFFSET:LENGTH=WHAT...

WHAT is "eio", "zero", "file:PATH" (the same range of that file), "any"
(anything but a dead server), or a number, the seed of mkimage.py's content;
alternatives are separated by "|".  The connection must still work at the end.
"""

import os
import sys

import nbd

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mkimage  # noqa: E402


def matches(what, got, offset, length):
    if what == "any":
        return True
    if what == "eio":
        return got is None
    if got is None:
        return False
    if what == "zero":
        return not any(got)
    if what.startswith("file:"):
        with open(what[5:], "rb") as f:
            f.seek(offset)
            return got == f.read(length).ljust(length, b"\0")
    return got == mkimage.content(mkimage.number(what), offset, length)


def main():
    h = nbd.NBD()
    h.connect_uri(sys.argv[1])
    bad = 0
    for word in sys.argv[2:]:
        where, _, what = word.partition("=")
        offset, length = (mkimage.number(x) for x in where.split(":"))
        try:
            got = bytes(h.pread(length, offset))
            result = "data starting with %s" % got[:32]
        except nbd.Error as e:
            if e.errnum != 5:
                result = str(e)
                print("check-reads: %s: %s" % (word, e))
                bad += 1
                continue
            got, result = None, "EIO"
        if not any(matches(w, got, offset, length) for w in what.split("|")):
            print("check-reads: %s: %s" % (word, result))
            bad += 1
    if not h.aio_is_ready():
        sys.exit("check-reads: the connection is gone")
    h.shutdown()
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
