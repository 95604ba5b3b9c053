#!/usr/bin/env bash
# No space for the proof that the path to the file is clear: the client is told
# that (and not that the path is at fault), and can write once there is space.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# A small file system of our own, that nobody else sees.
own=(unshare -m)
[ "$(id -u)" = 0 ] || own=(unshare -Urm)
mkdir small
requires "${own[@]}" mount -t tmpfs -o size=1m tmpfs "$tmp/small"

cat > full.py <<'END'
import nbd, os, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
assert not h.is_read_only ()
for i in range (2):
    try:
        h.pwrite (b"a" * 4096, 0)
        sys.exit ("there was space")
    except nbd.Error as e:
        assert e.errno == "ENOSPC", e
assert h.pread (4096, 0) == bytes (4096)
os.unlink ("small/fill")
h.pwrite (b"b" * 4096, 65536)
h.flush ()
assert h.pread (4096, 65536) == b"b" * 4096
h.shutdown ()
END

try ()
{
    # shellcheck disable=SC2154
    export image=$1
    timeout 60 "${own[@]}" bash -c '
        set -e
        mount -t tmpfs -o size=1m tmpfs small
        cp "$image" small/x.qcow2
        head -c 2M /dev/zero > small/fill 2>/dev/null || true
        nbdkit -U - --filter="$QCOW2EXT" file small/x.qcow2 \
               qcow2ext-allow="$tmp" \
               --run "\"\$PYTHON\" full.py \"\$uri\""
        cp small/x.qcow2 x.qcow2'
    clean
}

new_image x.qcow2 64M
cp x.qcow2 new.qcow2
# An internal image may go on through the layers below, but they are full too.
try new.qcow2
qemu-io -r -f qcow2 -c 'read -P 0x62 64k 4k' -c 'read -P 0 0 64k' x.qcow2

for raw in on off; do
    new_image -o "data_file=$tmp/x.data,data_file_raw=$raw" x.qcow2 64M
    cp x.qcow2 new.qcow2
    try new.qcow2
    qemu-io -r -f qcow2 -c 'read -P 0x62 64k 4k' -c 'read -P 0 0 64k' x.qcow2
done
