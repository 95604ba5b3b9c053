#!/usr/bin/env bash
# A write to a new cluster of a pair fails half way: what of it is in the data
# file does not come up with the next one.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

new_image -o data_file=x.data x.qcow2 2M
trap '' XFSZ
serve s --filter="$qcow2ext" file x.qcow2

nbdsh -u "$(uri s)" -c '
import resource, sys

C = 65536
at = 1 << 20

def limit (size):
    pid = int (open ("s.pid").read ())
    hard = resource.prlimit (pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit (pid, resource.RLIMIT_FSIZE, (size, hard))

h.pwrite (b"a" * 4096, C)       # the file is found to be empty
limit (at + C // 2)
try:
    h.pwrite (b"b" * C, at)
    sys.exit ("this should have failed")
except nbd.Error:
    pass
limit (resource.RLIM_INFINITY)
assert h.pread (C, at) == bytes (C)
with open ("x.data", "rb") as f:
    f.seek (at)
    assert f.read (C // 2) == b"b" * (C // 2), "something is left"

h.pwrite (b"c" * 4096, at + 4096)
assert h.pread (C, at) == bytes (4096) + b"c" * 4096 + bytes (C - 8192)
h.flush ()
'
stop s
clean
