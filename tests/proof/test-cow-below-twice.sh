#!/usr/bin/env bash
# The cow filter below: what was written is then only there and not in the
# image's file, and yet the next client finds the backing file, whose name is
# relative to that file.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires nbdkit --filter=cow null --version
requires_nbd_module
cd "$tmp"

head -c 8M /dev/urandom > b.raw
new_image -o cluster_size=4096 -b b.raw -F raw x.qcow2
# Below it cannot grow: let there be free clusters.
qemu-io -f qcow2 -c 'write 0 256k' -c 'write 1M 256k' -c 'discard 0 256k' \
        x.qcow2 > /dev/null
sha256sum x.qcow2 b.raw > sums

# The name must not be taken from the current directory.
mkdir elsewhere
cd elsewhere
serve s --filter="$qcow2ext" --filter=cow file "$tmp/x.qcow2"
for i in 1 2 3; do
    nbdsh -u "$(uri s)" -c "
base = open ('$tmp/b.raw', 'rb').read ()
for j in range (1, $i):
    assert h.pread (4096, j * 4096) == b'%04d' % j * 1024
h.pwrite (b'%04d' % $i * 1024, $i * 4096)
h.flush ()
assert h.pread (65536, 4 << 20) == base[4 << 20:(4 << 20) + 65536]
h.shutdown ()"
done
stop s
cd "$tmp"
sha256sum -c --quiet sums
