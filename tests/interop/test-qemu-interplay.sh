#!/usr/bin/env bash
# QEMU writes, we write, QEMU writes again, on the same image: each reads what the
# other has written.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

try ()
{
    local round size=$((6 * 1024 * 1024 + 1024))
    new_image -o "$1" x.qcow2 $size
    for round in 1 2 3; do
        scribble $round 40 $size
        clean
        qemu-img convert -f qcow2 -O raw x.qcow2 model.raw
        export seed=$round
        writing '
            "$PYTHON" "$lib/stress.py" "$uri" --ops 150 \
                      --seed "$seed" --model-in model.raw \
                      --model-out now.raw' file x.qcow2
        clean
        identical now.raw
        case $1 in
            *raw=on*) same_file now.raw x.data ;;
        esac
    done
    scribble 4 40 $size
    clean
}

try cluster_size=64K
try cluster_size=4K,compat=0.10
try data_file=x.data
try data_file=x.data,data_file_raw=on,cluster_size=4K
