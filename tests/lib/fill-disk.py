#!/usr/bin/env python3
"""Fills a disk until there is no space, and makes room again.

    fill-disk.py URI

Writes, trims and flushes on a connection to a disk that is larger than what can
be allocated for it, and compares what is read with what it should be: model.raw,
in the current directory, when it ends.
"""

import errno, nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
size = h.get_size ()
model = bytearray (size)
full = 0
for at in range (0, size, 65536):
    blob = b"%08x" % (at + 1) * 8192
    try:
        h.pwrite (blob, at)
        model[at:at + 65536] = blob
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
        full += 1
        # Some of it may be there.
        model[at:at + 65536] = h.pread (65536, at)
        if full == 8:
            break
assert full, "it never was full"
assert any (model[2 << 20:3 << 20])
h.flush ()
# There is space again.
h.trim (1 << 20, 0)
model[:1 << 20] = h.pread (1 << 20, 0)
h.flush ()
h.flush ()
h.pwrite (b"again..." * 8192, 0)
model[:65536] = b"again..." * 8192
h.flush ()
assert h.pread (size, 0) == model
with open ("model.raw", "wb") as f:
    f.write (model)
h.shutdown ()
