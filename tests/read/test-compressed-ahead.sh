#!/usr/bin/env bash
# A compressed cluster that is read in order, piece by piece, has the next one
# decoded ahead; one that is read in one place only has not.  What was decoded
# ahead shows when the file is damaged behind the server's back.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

mixed_file ref.raw 1048576
qemu-img convert -c -f raw -O qcow2 ref.raw good.qcow2

# Reads the given offsets, damages all data, then reads the second cluster.
try ()
{
    cp good.qcow2 x.qcow2
    serve s -r --filter="$qcow2ext" file x.qcow2
    "$PYTHON" - "$(uri s)" "$@" <<'END'
import nbd, os, sys
ref = open ("ref.raw", "rb").read ()
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
for at in map (int, sys.argv[2:]):
    assert h.pread (4096, at) == ref[at:at + 4096]
with open ("x.qcow2", "r+b") as f:
    start = 5 * 65536           # behind the tables
    end = os.fstat (f.fileno ()).st_size
    f.seek (start)
    f.write (b"\xff" * (end - start))
try:
    assert h.pread (4096, 65536) == ref[65536:65536 + 4096]
    print ("ahead")
except nbd.Error as e:
    assert e.errno == "EIO", e
    print ("not ahead")
END
    stop s
}

[ "$(try 0 4096 8192 12288)" = ahead ] || fail "read in order: not decoded"
[ "$(try 0)" = "not ahead" ] || fail "read once: the next one was decoded"
[ "$(try 0 61440)" = "not ahead" ] || fail "little was read, and yet decoded"
