#!/usr/bin/env bash
# Images that qemu-img convert -c made with zstd, over cluster sizes and versions,
# also partly overwritten, read identically and have QEMU's map.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdcopy --version
requires_nbd_module
cd "$tmp"

for cluster in 512 4096 65536 2097152; do
    compressed_case zstd compat=1.1,cluster_size=$cluster
done
for cluster in 16384 65536 2097152; do
    compressed_case zstd compat=1.1,cluster_size=$cluster,extended_l2=on
done
