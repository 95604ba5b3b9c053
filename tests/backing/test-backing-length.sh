#!/usr/bin/env bash
# Backing files of every length, down to nothing and to odd bytes, read as zeros
# past their end; what is behind the disk's end does not show.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

mixed_file long.raw 3000000
for size in 0 1 511 512 65535 65536 66000 999999 1000000 1000001 3000000; do
    for args in "--cluster-bits 16" "--cluster-bits 9" \
                "--extended-l2 --cluster-bits 14"; do
        echo "=== $size $args"
        head -c $size long.raw > base.raw
        # shellcheck disable=SC2086
        mkimage top.qcow2 --size 1000000 $args --backing base.raw \
                --backing-format raw
        cp base.raw ref.raw
        truncate -s 1000000 ref.raw
        same top.qcow2 ref.raw -- --connections 2 --reads 30

        # The same with a qcow2 image of that size between the two.
        # shellcheck disable=SC2086
        mkimage middle.qcow2 --size $size $args --backing long.raw \
                --backing-format raw
        # shellcheck disable=SC2086
        mkimage top.qcow2 --size 1000000 $args --backing middle.qcow2 \
                --backing-format qcow2
        same top.qcow2 ref.raw -- --connections 2 --reads 30
    done
done
