#!/usr/bin/env bash
# Random writing to images with extended L2 that hold their own data, with and
# without a backing file.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for cluster in 16384 65536 2097152; do
    size=$(size_for $cluster)
    head -c $((size / 3 + 512)) /dev/urandom > b.raw
    for backing in "" b.raw; do
        new_image ${backing:+-b $backing -F raw} \
                  -o "cluster_size=$cluster,extended_l2=on" x.qcow2 "$size"
        scribble "$stress_seed" 20 "$size"
        stress_image internal $cluster
    done
    for pre in metadata falloc; do
        new_image -o "cluster_size=$cluster,extended_l2=on" \
                  -o preallocation=$pre x.qcow2 "$size"
        stress_image internal $cluster
    done
done
