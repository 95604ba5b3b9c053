#!/usr/bin/env bash
# Random writing to encrypted images that hold their own data,
# with all ciphers and cluster sizes: QEMU's, and what QEMU makes of ours.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

stress_ops=$((stress_ops / 3))
for cipher in "$xts256" "$xts128" "$cbc256" "$cbc128"; do
    for cluster in 512 4096 65536 2097152; do
        size=$(size_for $cluster)
        new_encrypted "$cipher" -o "cluster_size=$cluster" x.qcow2 "$size"
        stress_encrypted internal $cluster
    done
done
