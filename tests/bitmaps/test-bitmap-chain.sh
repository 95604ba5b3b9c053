#!/usr/bin/env bash
# qcow2ext-bitmap-chain=true: what an overlay and its backing files have recorded
# in bitmaps of one name.  Nothing is shown if a layer has changes that nobody
# recorded.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires nbdinfo --version
cd "$tmp"

# map NBDKIT-ARGS...: what is dirty, as OFFSET+LENGTH
map ()
{
    # shellcheck disable=SC2016
    nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 "$@" \
           --run 'nbdinfo --map --json "$uri"' > map.json
    "$PYTHON" -c 'import json
print (*("%dK+%dK" % (e["offset"] // 1024, e["length"] // 1024)
         for e in json.load (open ("map.json")) if e["type"] == 0))'
}
chain=(qcow2ext-bitmap=b qcow2ext-bitmap-chain=true)

# An older base that has no bitmap does not matter; the layers differ in size,
# clusters and granularity.
qemu-img create -q -f qcow2 old.qcow2 1M
qemu-img create -q -f qcow2 -b old.qcow2 -F qcow2 base.qcow2 1M
qemu-img bitmap --add -g 64K base.qcow2 b
qemu-io -f qcow2 -c 'write 0 64k' -c 'write 960k 64k' base.qcow2
qemu-img create -q -f qcow2 -o cluster_size=4K -b base.qcow2 -F qcow2 \
         mid.qcow2 2M
qemu-img bitmap --add -g 4K mid.qcow2 b
qemu-io -f qcow2 -c 'write 256k 4k' -c 'write 1M 4k' mid.qcow2
qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 x.qcow2 4M
qemu-img bitmap --add -g 64K x.qcow2 b
qemu-io -f qcow2 -c 'write 64k 64k' -c 'write 3M 64k' x.qcow2

[ "$(map qcow2ext-bitmap=b)" = "64K+64K 3072K+64K" ] || fail "not one layer"
[ "$(map "${chain[@]}")" = "0K+128K 256K+4K 960K+68K 3072K+64K" ] ||
    fail "not what all layers have: $(map "${chain[@]}")"

refuses ()
{
    expect_fail "$1" nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 \
                "${chain[@]}" --run true
}
# One that was killed while it recorded.
serve s --filter="$qcow2ext" file base.qcow2
nbdsh -u "$(uri s)" -c 'h.pwrite (b"k" * 512, 0)' -c "
import os, signal
os.kill ($(< s.pid), signal.SIGKILL)"
rm s.pid
refuses 'base.qcow2.*"b" is inconsistent'
qemu-img bitmap --remove base.qcow2 b
qemu-img bitmap --add -g 64K base.qcow2 b
[ "$(map "${chain[@]}")" = "64K+64K 256K+4K 1024K+4K 3072K+64K" ]
# One in between that recorded nothing.
qemu-img bitmap --remove mid.qcow2 b
refuses 'mid.qcow2.*no bitmap "b".*below'
# Bitmaps that a program which knows none has made invalid.
qemu-img bitmap --add mid.qcow2 b
"$PYTHON" -c '
with open ("base.qcow2", "r+b") as f:
    f.seek (95)
    f.write (bytes (1))'
refuses 'base.qcow2.*not valid'
expect_fail 'needs qcow2ext-bitmap' nbdkit -r -U - --filter="$qcow2ext" \
            file x.qcow2 qcow2ext-bitmap-chain=true --run true
