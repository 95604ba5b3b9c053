#!/usr/bin/env bash
# Compressed clusters that share sectors, span host clusters, lack a final block
# or are cut at the end of the file are decoded, in all cluster sizes.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires zstd --version
requires_nbd_module
cd "$tmp"

try ()
{
    echo "=== $*"
    mkimage x.qcow2 --reference ref.raw "$@"
    # Every other time without the cache of decoded clusters.
    same x.qcow2 ref.raw qcow2ext-decoded-cache-size=$size \
         -- --connections 2 --reads 30
    size=$((16777216 - size))
}

size=0
for b in 9 12 16 18; do
    disk=$((40 << b))
    c=$((1 << b))
    for args in "--version 2" "" "--compression zstd"; do
        # Packed without gaps: sectors are shared and clusters spanned.
        # shellcheck disable=SC2086
        try --cluster-bits $b --size $disk $args --compress 0-35=7
        # One byte before the end of a host cluster, and around it.
        for skip in $((c - 1)) $((c - 512)); do
            # shellcheck disable=SC2086
            try --cluster-bits $b --size $disk $args --data 0=1 \
                --compress 1=2,nopack,skip:$skip --compress 2=3 --data 3=4
        done
        # More sectors than it takes, and the end of the file in the stream's
        # last sector.
        # shellcheck disable=SC2086
        try --cluster-bits $b --size $disk $args --data 0=1 \
            --compress 3=5,more:1,last
        # shellcheck disable=SC2086
        try --cluster-bits $b --size $disk $args --compress 5-9=5,last
        if [ "$args" != "--compression zstd" ]; then
            # shellcheck disable=SC2086
            try --cluster-bits $b --size $disk $args \
                --compress 3-8=5,nofinal
        fi
    done
done
# A last cluster that is only partly on the disk.
try --size 1000001 --compress 0-15=5
try --size 1000001 --compress 0-15=5 --compression zstd
try --size 1M --extended-l2 --compress 0-7=5 --data 8=1 --compress 9-12=6
# Bit 0 of a descriptor is part of the offset, not a zero flag: streams at odd
# offsets, at all of them within a sector in the end.
for skip in $(seq 1 4 31); do
    try --size 64K --cluster-bits 12 --compress 0=5,skip:"$skip" \
        --compress 1-15=6
done
