#!/usr/bin/env bash
# A block of reference counts that cannot be read for a while, just when freed
# clusters are to be released: they must not be released twice later, for by
# then they may hold data that was acknowledged.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires nbdkit eval --version
requires_nbd_module
cd "$tmp"

new_image -o cluster_size=512,refcount_bits=64 x.qcow2 4M
qemu-io -f qcow2 -c 'write -P 1 0 512k' x.qcow2 > /dev/null
# Not a local file that we can open, and so it cannot grow.
truncate -s 6M x.qcow2
# The block of counts in the middle of what will be freed.
block=$("$PYTHON" -c '
import struct
d = open ("x.qcow2", "rb").read ()
table, = struct.unpack_from (">Q", d, 48)
print (struct.unpack_from (">Q", d, table + 5 * 8)[0])')
[ "$block" -gt 0 ] || fail "no such block"

cat > frees.py <<'END'
import nbd, os, sys
K = 1024
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
open ("broken", "w").close ()
try:
    h.trim (256 * K, 0)
    h.flush ()
    h.flush ()
except nbd.Error as e:
    print (e)
os.unlink ("broken")
acked = {}
for at in range (1024 * K, 2048 * K, 256 * K):
    data = os.urandom (256 * K)
    h.pwrite (data, at)
    acked[at] = data
    assert h.pread (256 * K, at) == data, at
    h.flush ()
    for a, d in acked.items ():
        assert h.pread (256 * K, a) == d, (at, a)
with open ("want.raw", "wb") as f:
    f.seek (256 * K)
    f.write (b"\1" * (256 * K))
    for a, d in acked.items ():
        f.seek (a)
        f.write (d)
    f.truncate (4096 * K)
h.shutdown ()
END

export image=$tmp/x.qcow2 broken=$tmp/broken block
writing '"$PYTHON" frees.py "$uri"' eval \
    get_size='stat -c %s "$image"' \
    pread='if [ -e "$broken" ] && [ "$4" -eq "$block" ]; then
               echo EIO broken >&2; touch "$broken.seen"; exit 1
           fi
           dd if="$image" iflag=skip_bytes,count_bytes skip=$4 count=$3 \
              bs=64K status=none' \
    pwrite='dd of="$image" oflag=seek_bytes conv=notrunc seek=$4 bs=64K \
              iflag=fullblock status=none' \
    can_write='exit 0' can_flush='exit 0' flush='exit 0'
[ -e broken.seen ] || fail "that block was not read at that time"
clean
identical want.raw
