#!/usr/bin/env bash
# The same as in test-late-seek.sh while a flush runs: what is written meanwhile,
# and what the flush has not yet reached, is not found either.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

export LATE_SEEK_HOLD=$tmp/hold
for raw in off on; do
    new_image -o data_file=x.data,data_file_raw=$raw x.qcow2 2M
    serve_preloaded late-seek s --filter="$qcow2ext" file x.qcow2
    nbdsh --base-allocation -u "$(uri s)" -c '
import os, time
C = 65536
hold = os.environ["LATE_SEEK_HOLD"]

def extents (at):
    found = []
    h.block_status (C, at, lambda ctx, at, e, err: found.extend (e))
    return found

def until (condition):
    deadline = time.monotonic () + 120
    while not condition ():
        assert time.monotonic () < deadline
        h.poll (10)

h.pwrite (b"a" * C, C)
h.zero (C, C, nbd.CMD_FLAG_NO_HOLE)
h.pwrite (b"c" * C, 3 * C)

open (hold, "w").close ()
flush = h.aio_flush ()
until (lambda: os.path.exists (hold + ".held"))
h.pwrite (b"b" * 4096, C + 4096)
h.pwrite (b"d" * C, 4 * C)
for at in (3 * C, 4 * C):
    assert extents (at) == [C, 0], extents (at)
os.unlink (hold)
until (lambda: h.aio_command_completed (flush))
os.unlink (hold + ".held")
assert extents (4 * C) == [C, 0], "written while the flush ran"

want = bytes (4096) + b"b" * 4096 + bytes (C - 8192)
h.flush ()
assert h.pread (C, C) == want, "what was zeroed is there again"
assert extents (4 * C) == [C, 0]
assert extents (6 * C)[1] == 3, "holes are never found"
'
    stop s
    clean
done
