#!/usr/bin/env bash
# A data file that is shorter than the disk reads as zeros past its end, and
# one that is longer is left alone; the size is the image's.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

for args in "--cluster-bits 9" "--cluster-bits 16" "--cluster-bits 16 --raw" \
            "--cluster-bits 14 --extended-l2"; do
    # shellcheck disable=SC2086
    mkimage x.qcow2 --size 1000000 $args --data-file x.data \
            --data 0-14=7 --data-file-out x.data --reference ref.raw
    same x.qcow2 ref.raw
    for size in 0 1 511 512 5000 65536 70000 999999; do
        echo "=== $args $size"
        cp ref.raw part.raw
        truncate -s $size part.raw
        truncate -s 1000000 part.raw
        cp ref.raw x.data
        truncate -s $size x.data
        same x.qcow2 part.raw -- --reads 20
        [ "$(stat -c %s x.data)" = $size ] || fail "its size has changed"
    done
    # What is beyond the disk does not show.
    for size in 1000001 1048576 3000000; do
        cp ref.raw x.data
        head -c 3000000 /dev/urandom >> x.data
        truncate -s $size x.data
        md5sum x.data > before
        same x.qcow2 ref.raw -- --reads 20
        md5sum -c --quiet before
    done
done
