#!/usr/bin/env bash
# The server of the data file has no space left: the client is told just that,
# and goes on when there is space again.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
mount_small 4m

for raw in off on; do
    rm -f small/*
    new_image -o "data_file=small/x.data,data_file_raw=$raw" x.qcow2 16M
    truncate -s 16M small/x.data
    serve far file small/x.data
    serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"
    "$PYTHON" "$lib/fill-disk.py" "$(uri s)"
    stop s
    stop far
    clean
    identical model.raw
done
