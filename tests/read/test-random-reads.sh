#!/usr/bin/env bash
# Eight connections that read at random over many L2 tables all get what
# the reference has.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# With 4 KiB clusters an L2 table covers 2 MiB, with 64 KiB 512 MiB.
for size_opts in 40M:cluster_size=4096 1100M:cluster_size=65536 \
                 40M:cluster_size=4096,data_file=x.data \
                 1100M:cluster_size=65536,data_file=x.data,data_file_raw=on; do
    size=${size_opts%%:*} opts=${size_opts#*:} seed=$RANDOM$RANDOM
    echo "=== $size $opts, seed $seed"
    rm -f x.qcow2 x.data
    qemu-img create -q -f qcow2 -o "$opts" x.qcow2 "$size"
    "$PYTHON" "$lib/qemu-io-ops.py" --seed "$seed" --count 150 \
              --size $((${size%M} << 20)) |
        sed '/^write -P/s/ [0-9]\{8\}[0-9]*$/ 5000000/' |
        qemu-io -f qcow2 x.qcow2 > /dev/null
    qemu-img convert -f qcow2 -O raw x.qcow2 ref.raw
    same x.qcow2 ref.raw qcow2ext-l2-cache-size=64K \
         -- --seed "$seed" --connections 8 --no-map
    same x.qcow2 ref.raw -- --seed "$seed" --connections 8 --reads 50
done
