#!/usr/bin/env bash
# One image of each kind, served and written on this machine, then read and
# checked by QEMU; and offsets beyond 4 GiB, of the guest and of the host.
# .ci/other-machine runs this with the nbdkit of other machines.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
stress_ops=200
stress_rounds=1

qemu-img create -q -f raw base.raw 2M
scribble_base ()
{
    "$PYTHON" "$lib/qemu-io-ops.py" --seed 5 --count 30 \
              --size 2097152 | qemu-io -f raw base.raw > /dev/null
}
scribble_base

# kind KIND CLUSTER CREATE-ARGS... -- SIZE [compressed]
size=3147264
kind ()
{
    local kind=$1 cluster=$2 compressed=()
    shift 2
    new_image -o "cluster_size=$cluster" "$@" x.qcow2 $size
    [ "$kind" != internal ] || compressed=(--compressed "$cluster")
    # QEMU refuses some compressed writes.
    "$PYTHON" "$lib/qemu-io-ops.py" --seed 6 --count 30 \
              --size $size "${compressed[@]}" |
        qemu-io -f qcow2 -d unmap x.qcow2 > /dev/null || true
    clean
    stress_image "$kind" "$cluster"
}

subclusters=1
kind internal 4096 -o compat=0.10
kind internal 65536 -o lazy_refcounts=on,compression_type=zlib
kind internal 16384 -o compression_type=zstd,refcount_bits=1
kind internal 512 -o refcount_bits=64 -b base.raw -F raw
kind plain 16384 -o data_file=x.data
kind raw 4096 -o data_file=x.data,data_file_raw=on
subclusters=32
kind internal 65536 -o extended_l2=on -b base.raw -F raw
kind raw 16384 -o extended_l2=on,data_file=x.data,data_file_raw=on
subclusters=1

# Snapshots and bitmaps are tables of their own.
new_image -o cluster_size=16384,refcount_bits=32 x.qcow2 $size
scribble 7 30 $size
qemu-img snapshot -c s x.qcow2
qemu-img bitmap --add -g 4096 x.qcow2 b
snapshots=(s)
stress_image internal 16384
snapshots=()
qemu-img info --output=json x.qcow2 | jq -e '
    ."format-specific".data.bitmaps == [{"name": "b", "granularity": 4096,
                                         "flags": ["auto"]}]'

# The guest's offsets go beyond 4 GiB and, as the tables are there already,
# those in the file as well; what is compressed is put at its end.
cat > far.py <<'END'
import nbd, sys
G = 1 << 30
h = nbd.NBD ()
h.add_meta_context ("base:allocation")
h.connect_uri (sys.argv[1])
assert h.get_size () == 6 * G + 512
if sys.argv[2] == "compressed":
    assert h.pread (65536, 5 * G + 65536) == b"\x5a" * 65536
places = [4 * G - 100, 4 * G + 65536 * 3 + 77, 5 * G - 3, 6 * G + 512 - 1000,
          2 * G - 5, 12345]
for i, at in enumerate (places):
    h.pwrite (bytes ([65 + i]) * 1000, at)
h.flush ()
h.zero (1 << 20, 4 * G + (1 << 20) * 5 - 7)
h.zero (3 * G, 1 * G)           # over the boundary
h.trim (1 << 20, 4 * G + (1 << 20) * 8)
h.pwrite (b"y" * 300000, 4 * G - 150000)
h.flush ()

def at (offset, n):
    return bytes (h.pread (n, offset))
assert at (4 * G - 150001, 300002) == b"\0" + b"y" * 300000 + b"\0"
assert at (places[1] - 1, 1002) == b"\0" + b"B" * 1000 + b"\0"
assert at (places[2] - 1, 1002) == b"\0" + b"C" * 1000 + b"\0"
assert at (places[3] - 1, 1001) == b"\0" + b"D" * 1000
assert at (places[4] - 1, 1002) == bytes (1002)
assert at (places[5], 1000) == b"F" * 1000
# What is at one offset does not show 4 GiB below.
assert at (places[2] - 4 * G, 1000) == bytes (1000)
assert at (places[3] - 4 * G, 1000) == bytes (1000)
found = []
def extents (context, offset, entries, error):
    found.append (sum (entries[::2]))
    return 0
h.block_status (1 * G, 4 * G + 512 * 1024 * 1024, extents)
assert found and found[0] > 0
h.shutdown ()
END

far ()
{
    local image=$1
    serve far --filter="$qcow2ext" file x.qcow2
    "$PYTHON" far.py "$(uri far)" "$image"
    # Again, from the file.
    stop far
    clean
    qemu-io -f qcow2 x.qcow2 \
            -c "read -q -P 0x79 $(((4 << 30) - 150000)) 300000" \
            -c "read -q -P 0x43 $(((5 << 30) - 3)) 1000" \
            -c "read -q -P 0x44 $(((6 << 30) - 488)) 1000" \
            -c "read -q -P 0 1G 1G" -c "read -q -P 0x46 12345 1000" \
            > far.out 2>&1
    cat far.out
    ! grep -q . far.out || fail "QEMU reads something else"
}

for opts in preallocation=metadata data_file=x.data \
            data_file=x.data,data_file_raw=on preallocation=off; do
    new_image -o "$opts" x.qcow2 $(((6 << 30) + 512))
    far "$opts"
done
new_image -o preallocation=metadata x.qcow2 $(((6 << 30) + 512))
qemu-io -f qcow2 -d unmap -c "discard -q $(((5 << 30) + 65536)) 64k" \
        -c "write -q -c -P 0x5a $(((5 << 30) + 65536)) 64k" x.qcow2
[ "$(stat -c %s x.qcow2)" -gt $((6 << 30)) ] || fail "the image is short"
far compressed
