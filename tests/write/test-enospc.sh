#!/usr/bin/env bash
# The file system of the data file is full: the client is told so, what is there
# can be read, and the image stays sound.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
mount_small 4m

for opts in "data_file=small/x.data" "data_file=small/x.data,data_file_raw=on"; do
    rm -f small/* x.qcow2
    qemu-img create -q -f qcow2 -o "$opts" x.qcow2 16M
    serve s --filter="$qcow2ext" file x.qcow2
    "$PYTHON" "$lib/fill-disk.py" "$(uri s)" || fail "$opts"
    stop s
    clean
    identical model.raw
done
