#!/usr/bin/env bash
# Random writing where the data file is shorter than the disk, or longer, and
# where the disk's size is not a multiple of anything.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# There are many cases.
stress_rounds=1
stress_ops=$((stress_ops / 2))

for raw in "" --raw; do
    kind=${raw:+raw}
    kind=${kind:-plain}
    # Clusters of 512 bytes to 2 MiB; 3 M and something.
    for bits in 9 12 16 21; do
        for extended in "" --extended-l2; do
            [ $bits -ge 14 ] || [ -z "$extended" ] || continue
            cluster=$((1 << bits)) size=$((3 * 1024 * 1024 + 54321))
            [ $bits -ne 9 ] || size=$((512 * 1024 + 321))
            last=$((size / cluster))
            rm -f x.qcow2 x.data
            # shellcheck disable=SC2086
            mkimage x.qcow2 --size $size --cluster-bits $bits \
                    --data-file x.data --data 0=7 $raw $extended \
                    --data "$last=8" --data-file-out x.data \
                    --reference initial.raw
            # A part of the last cluster may be missing.
            short=$((size - 20000))
            [ $bits -ne 9 ] || short=$((size - 100))
            for length in 0 $short $size $((size + 100000)); do
                echo "=== bits $bits $raw $extended: $length of $size"
                cp --sparse=always initial.raw short.raw
                truncate -s "$length" x.data
                if [ "$length" -lt $size ]; then
                    truncate -s "$length" short.raw
                    truncate -s $size short.raw
                elif [ "$length" -gt $size ]; then
                    dd if=/dev/urandom of=x.data bs=1000 count=100 \
                       seek=$size oflag=seek_bytes conv=notrunc status=none
                    tail -c 100000 x.data > tail.before
                fi
                cp x.qcow2 saved.qcow2
                initial=short.raw
                stress_image "$kind" $cluster --connections 2
                # What lies behind the disk is left alone.
                [ "$length" -le $size ] ||
                    tail -c 100000 x.data | cmp - tail.before
                cp saved.qcow2 x.qcow2
                rm x.data
                cp --sparse=always initial.raw x.data
            done
        done
    done
done
