#!/usr/bin/env bash
# A raw pair with extended L2 entries, and one of them without the "copied"
# flag: a write to one subcluster keeps what the others have.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# Cluster 1: subclusters 0 to 15 have data and 16 to 31 are without any, or
# are zero; the flag is what is missing.
for bitmap in 0x000000000000ffff 0xffff00000000ffff; do
    mkimage x.qcow2 --size 1M --extended-l2 --data-file x.data --raw \
            --data 0=7 --l2 1=0x10000:$bitmap --data-file-out x.data
    "$PYTHON" -c '
f = open ("x.data", "r+b")
f.seek (65536)
f.write (b"D" * 32768)'
    serve s --filter="$qcow2ext" file x.qcow2
    nbdsh -u "$(uri s)" -c '
want = bytearray (h.pread (1 << 20, 0))
assert want[65536:65536 + 32768] == b"D" * 32768
def write (data, at):
    h.pwrite (data, at)
    want[at:at + len (data)] = data
    got = h.pread (1 << 20, 0)
    assert got == want, "lost after a write at %d" % at
write (b"N" * 512, 65536 + 40960)
write (b"M" * 3000, 65536 + 5000)
write (b"L" * 2048, 65536 + 63488)
h.flush ()
open ("want.raw", "wb").write (want)
'
    stop s
    clean
    identical want.raw
    same_file want.raw x.data
done
