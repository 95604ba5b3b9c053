#!/usr/bin/env bash
# Random writing to images with a raw external data file whose metadata is not
# preallocated, as older and foreign programs make them.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

kind=raw

unmapped ()
{
    local bits=$1 size
    shift
    echo "=== cluster_bits $bits $*"
    size=$(size_for $((1 << bits)))
    rm -f x.qcow2 x.data
    mkimage x.qcow2 --size "$size" --cluster-bits "$bits" --data-file x.data \
            --raw --data-file-out x.data "$@"
    truncate -s "$size" x.data
    # A part of a cluster that is not mapped may keep its old bytes.
    stress_image "$kind" $((1 << bits))
}

for bits in 9 12 16 21; do
    unmapped $bits
    unmapped $bits --data 1=7 --zero 2-3 --data 5-6=8
done
for bits in 14 16 21; do
    kind=raw
    unmapped $bits --extended-l2
    kind=stale subclusters=32
    unmapped $bits --extended-l2 --data 1=7 --data 5-6=8 \
             --subclusters 2=9:0xff00ff0f:0x00ff0000
done
