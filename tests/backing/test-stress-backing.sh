#!/usr/bin/env bash
# Random writing to images over raw and qcow2 backing files, short ones and a
# chain of them, which stay as they are.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for cluster in 512 4096 65536 2097152; do
    size=$(size_for $cluster)
    head -c "$size" /dev/urandom > b.raw
    head -c $((size / 3 + 512)) b.raw > short.raw
    qemu-img create -q -f qcow2 -F raw -b short.raw -o cluster_size=4096 \
             b1.qcow2 "$size"
    scribble "$stress_seed" 20 "$size" b1.qcow2
    qemu-img create -q -f qcow2 -F qcow2 -b b1.qcow2 b2.qcow2 \
             $((size / 2 + 1024))
    scribble "$stress_seed" 20 $((size / 2 + 1024)) b2.qcow2
    for backing in b.raw short.raw b2.qcow2; do
        new_image -b $backing -F ${backing#*.} -o "cluster_size=$cluster" \
                  x.qcow2 "$size"
        untouched=(b.raw short.raw b1.qcow2 b2.qcow2)
        stress_image internal $cluster
    done
done
