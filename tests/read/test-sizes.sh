#!/usr/bin/env bash
# Virtual sizes that are no multiple of the cluster, the sector or anything
# are served exact to the byte.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

for size in 0 1 511 512 513 4095 65535 65536 65537 66047 1000001; do
    for args in "--cluster-bits 9" "--cluster-bits 16" "--cluster-bits 21" \
                "--cluster-bits 16 --extended-l2" \
                "--cluster-bits 9 --version 2" \
                "--cluster-bits 16 --data-file x.data" \
                "--cluster-bits 9 --data-file x.data --raw"; do
        echo "=== $size $args"
        data=()
        [ $size = 0 ] || data=(--data "0-$(((size - 1) >> ${args:15:2}))=7")
        # shellcheck disable=SC2086
        mkimage x.qcow2 --size $size $args "${data[@]}" \
                --reference ref.raw --data-file-out x.data
        same x.qcow2 ref.raw -- --connections 2 --reads 20
    done
done
