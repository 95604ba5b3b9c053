#!/usr/bin/env bash
# On FUSE, and on overlayfs above it, SEEK_DATA does not find what is not written
# back yet: neither what surrounds a write nor what a client copies goes by it.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for i in "off fuse" "on fuse" "off overlay"; do
    read -r raw LATE_SEEK_TYPE <<< "$i"
    export LATE_SEEK_TYPE
    new_image -o data_file=x.data,data_file_raw=$raw x.qcow2 2M
    serve_preloaded late-seek s --filter="$qcow2ext" file x.qcow2
    nbdsh --base-allocation -u "$(uri s)" -c '
C = 65536

def extents ():
    found = []
    h.block_status (C, C, lambda ctx, at, e, err: found.extend (e))
    return found

h.pwrite (b"a" * C, C)
assert extents () == [C, 0], extents ()
h.zero (C, C, nbd.CMD_FLAG_NO_HOLE)
h.pwrite (b"b" * 4096, C + 4096)
want = bytes (4096) + b"b" * 4096 + bytes (C - 8192)
assert h.pread (C, C) == want, "what was zeroed is there again"
h.flush ()
assert h.pread (C, C) == want
'
    stop s
    clean
done
