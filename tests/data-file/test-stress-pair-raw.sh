#!/usr/bin/env bash
# Random writing over several connections to images with a raw external data
# file, of all cluster sizes, with and without extended L2; the data file
# itself is the disk after each round.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# QEMU preallocates their metadata.
for cluster in 512 4096 65536 2097152; do
    new_image -o "cluster_size=$cluster,data_file=x.data,data_file_raw=on" \
              x.qcow2 "$(size_for $cluster)"
    stress_image raw $cluster
done
for cluster in 16384 65536 2097152; do
    new_image -o "cluster_size=$cluster,data_file=x.data,data_file_raw=on" \
              -o extended_l2=on x.qcow2 "$(size_for $cluster)"
    stress_image raw $cluster
done
