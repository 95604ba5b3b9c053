#!/usr/bin/env bash
# Random writing to images with a data file over raw and qcow2 backing files,
# also ones that are shorter than the disk; the backing files stay as they are.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# There are many cases.
stress_ops=$((stress_ops / 3))

for cluster in 4096 65536 2097152; do
    size=$(size_for $cluster)
    for backing in "$size" $((size / 3 + 512)); do
        head -c "$backing" /dev/urandom > b.raw
        qemu-img convert -f raw -O qcow2 -o cluster_size=64k b.raw b.qcow2
        scribble "$stress_seed" 20 "$backing" b.qcow2
        for format in raw qcow2; do
            for l2 in off on; do
                [ $cluster != 4096 ] || [ $l2 = off ] || continue
                new_image -b b.$format -F $format \
                          -o "cluster_size=$cluster,data_file=x.data" \
                          -o extended_l2=$l2 x.qcow2 "$size"
                untouched=("b.$format")
                stress_rounds=2
                [ $format = qcow2 ] || stress_rounds=1
                stress_image plain $cluster
            done
        done
    done
done
