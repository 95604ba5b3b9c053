#!/usr/bin/env bash
# Images with persistent bitmaps are read like any other, and reading changes no
# byte of them.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for opts in cluster_size=64k data_file=x.data data_file=x.data,data_file_raw=on
do
    rm -f x.qcow2 x.data
    qemu-img create -q -f qcow2 -o $opts x.qcow2 5M
    qemu-img bitmap --add x.qcow2 one
    qemu-img bitmap --add -g 512 x.qcow2 'number two'
    qemu-io -f qcow2 -c 'write -P 7 1M 2M' x.qcow2 > /dev/null
    qemu-img bitmap --disable x.qcow2 one
    qemu-img convert -O raw x.qcow2 ref.raw
    md5sum x.qcow2 > before
    qemu-img info x.qcow2 > info.txt
    same x.qcow2 ref.raw
    md5sum -c --quiet before
    qemu-img check -q x.qcow2
done
