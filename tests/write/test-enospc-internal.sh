#!/usr/bin/env bash
# The file system of an image that holds its own data is full: the client is told
# so, what was acknowledged can be flushed, and trimming makes room again.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
mount_small 4m

for cluster in 4096 65536; do
    rm -f small/*
    qemu-img create -q -f qcow2 -o cluster_size=$cluster small/x.qcow2 16M
    serve s --filter="$qcow2ext" file small/x.qcow2
    "$PYTHON" "$lib/fill-disk.py" "$(uri s)" || fail "cluster size $cluster"
    qemu-img check small/x.qcow2 || fail "cluster size $cluster: not clean"
    stop s
    qemu-img compare -f raw -F qcow2 model.raw small/x.qcow2
done
