#!/usr/bin/env bash
# Random writing over several connections to images with an external data
# file, of all cluster sizes, with and without preallocated metadata and
# extended L2.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for pre in off metadata; do
    for cluster in 512 4096 65536 2097152; do
        new_image -o "cluster_size=$cluster,data_file=x.data" \
                  -o preallocation=$pre x.qcow2 "$(size_for $cluster)"
        stress_image plain $cluster
    done
    for cluster in 16384 65536 2097152; do
        new_image -o "cluster_size=$cluster,data_file=x.data,extended_l2=on" \
                  -o preallocation=$pre x.qcow2 "$(size_for $cluster)"
        stress_image plain $cluster
    done
done
