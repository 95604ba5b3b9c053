#!/usr/bin/env bash
# An image that changes while no client is connected is read anew by the first
# client after that: content, size, data file.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

mkimage x.qcow2 --data 0-3=7 --reference ref.raw
serve s -r --filter="$qcow2ext" file x.qcow2
check_disk "$(uri s)" ref.raw
for args in "--data 0-3=8 --zero 5" "--size 5M --data 70=3" \
            "--size 100K --data 0-1=4 --cluster-bits 9" \
            "--data-file x.data --data 2=5 --cluster-bits 12" \
            "--extended-l2 --data 2=5" "--version 2 --data 1-7=1"; do
    echo "=== $args"
    # Into the same file ...
    # shellcheck disable=SC2086
    mkimage y.qcow2 $args --reference ref.raw --data-file-out x.data
    cat y.qcow2 > x.qcow2
    check_disk "$(uri s)" ref.raw
    # ... and another one in its place.
    # shellcheck disable=SC2086
    mkimage y.qcow2 --data 1=9 --reference ref.raw
    mv y.qcow2 x.qcow2
    check_disk "$(uri s)" ref.raw
done

# It may turn bad, and good again; the server stays.
echo nothing > x.qcow2
expect_fail '.' nbdinfo --size "$(uri s)"
mkimage x.qcow2 --data 0-3=7 --reference ref.raw
check_disk "$(uri s)" ref.raw
rm x.qcow2
expect_fail '.' nbdinfo --size "$(uri s)"
mkimage x.qcow2 --data 0-3=8 --reference ref.raw
check_disk "$(uri s)" ref.raw
stop s
