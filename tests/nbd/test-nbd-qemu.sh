#!/usr/bin/env bash
# QEMU's own servers have the data file: what QEMU wrote to a pair is read, and
# what is written is what QEMU sees afterwards.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires qemu-nbd --version
requires qemu-storage-daemon --version
requires_nbd_module
cd "$tmp"

wait_for_socket ()
{
    wait_until "$1 serves" nbdinfo --size "$2"
}

qemu_nbd ()
{
    qemu-nbd -f raw -t -k "$tmp/far.sock" --pid-file far.pid --discard=unmap \
             "$@" x.data < /dev/null &
    cleanup_fn _kill_pidfile "$tmp/far.pid"
    wait_for_socket qemu-nbd "$(uri far)"
}

storage_daemon ()
{
    qemu-storage-daemon --pidfile far.pid \
        --blockdev driver=file,node-name=d,filename=x.data,discard=unmap \
        --nbd-server addr.type=unix,addr.path="$tmp/far.sock" \
        --export nbd,id=e,node-name=d,name=disk,writable=on < /dev/null &
    cleanup_fn _kill_pidfile "$tmp/far.pid"
    wait_for_socket qemu-storage-daemon "nbd+unix:///disk?socket=$tmp/far.sock"
}

round ()
{
    local server=$1 far=$2
    shift 2
    for raw in off on; do
        new_image -o "data_file=x.data,data_file_raw=$raw" x.qcow2 20M
        truncate -s 20M x.data
        scribble 1 40 $((20 * 1024 * 1024))
        qemu-img convert -f qcow2 -O raw x.qcow2 before.raw
        $server "$@"
        serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$far"
        # It compares what is there with the model, too.
        stress "$(uri s)" --seed 5 --ops 600 --cluster 65536 \
               --model-in before.raw --model-out after.raw
        stop s
        kill "$(cat far.pid)"
        while _running "$(cat far.pid 2>/dev/null || echo 0)"; do
            sleep 0.05
        done
        rm -f far.pid far.sock
        clean
        identical after.raw
        [ $raw = off ] || same_file after.raw x.data
    done
}

round qemu_nbd "$(uri far)" -e 1
round qemu_nbd "$(uri far)" -e 0 --cache=none --aio=native
round storage_daemon "nbd+unix:///disk?socket=$tmp/far.sock"
