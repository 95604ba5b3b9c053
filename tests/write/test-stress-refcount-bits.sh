#!/usr/bin/env bash
# Random writing to images with narrow and wide refcounts.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for bits in 1 2 8 64; do
    for cluster in 512 65536; do
        size=$(size_for $cluster)
        new_image -o "cluster_size=$cluster,refcount_bits=$bits" x.qcow2 "$size"
        stress_image internal $cluster
    done
done
