#!/usr/bin/env bash
# Random writing to images with narrow and wide refcounts.
# shellcheck source=tests/functions.sh
source "${srcdir:-$(dirname "$0")}/functions.sh"
# shellcheck source=tests/writing.sh
source "$srcdir/writing.sh"
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
