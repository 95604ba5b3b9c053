#!/usr/bin/env bash
# qemu-storage-daemon as a client: it serves our export to others, who read and
# write at random.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires qemu-storage-daemon --version
requires_nbd_module
cd "$tmp"

for opts in cluster_size=64K "data_file=x.data,data_file_raw=on"; do
    new_image -o "$opts" x.qcow2 8M
    truncate -s 0 model.raw
    truncate -s 8M model.raw
    serve s --filter="$qcow2ext" file x.qcow2
    storage_daemon \
        --blockdev "nbd,node-name=disk,discard=unmap,server.type=unix,server.path=$tmp/s.sock" \
        --nbd-server "addr.type=unix,addr.path=$tmp/d.sock,max-connections=8" \
        --export nbd,id=e,node-name=disk,name=,writable=on
    stress "$(uri d)" --ops 300 --seed 5 --size 8M --model-in model.raw \
           --model-out model.raw || fail "$opts"
    stop d
    stop s
    clean
    identical model.raw
done
same_file model.raw x.data
