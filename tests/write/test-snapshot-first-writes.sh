#!/usr/bin/env bash
# Right after a snapshot all tables are shared: many first changes at once all
# succeed, and the snapshot stays what it was.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > first.py <<'END2'
import nbd, sys
uri, kind, cluster = sys.argv[1], sys.argv[2], int (sys.argv[3])
handles = [nbd.NBD () for _ in range (2)]
for h in handles:
    h.connect_uri (uri)
size = handles[0].get_size ()
errors = []
def completed (error):
    error = getattr (error, "value", error)
    if error:
        errors.append (error)
    return 1
for i in range (min (32, size // cluster)):
    h = handles[i % 2]
    if kind == "write":
        h.aio_pwrite (nbd.Buffer.from_bytearray (bytearray (b"x" * 100)),
                      i * cluster + cluster // 2, completion=completed)
    elif kind == "zero":
        h.aio_zero (cluster, i * cluster, completion=completed)
    else:
        h.aio_trim (cluster, i * cluster, completion=completed)
while any (h.aio_in_flight () for h in handles):
    for h in handles:
        if h.aio_in_flight ():
            h.poll (1)
sys.exit ("errors: %r" % errors if errors else 0)
END2

for cluster in 512 65536 2097152; do
    size=$((32 * cluster))
    [ $cluster -lt 2097152 ] || size=$((8 * cluster))
    new_image -o "cluster_size=$cluster" x.qcow2 $size
    qemu-io -f qcow2 -c "write -P 1 0 $size" x.qcow2 > /dev/null
    qemu-img snapshot -c one x.qcow2
    save_snapshots one
    mv x.qcow2 base.qcow2
    for kind in write zero trim; do
        for i in {1..10}; do
            cp base.qcow2 x.qcow2
            echo "=== $kind, cluster $cluster, round $i"
            writing "\"\$PYTHON\" first.py \"\$uri\" $kind $cluster" \
                    file x.qcow2
            clean
            same_snapshots one
        done
    done
done
