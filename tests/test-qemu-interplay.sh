#!/usr/bin/env bash
# QEMU writes, we write, QEMU writes again, on the same image: each reads what the
# other has written.
# shellcheck disable=SC2016
# shellcheck source=tests/functions.sh
source "${srcdir:-$(dirname "$0")}/functions.sh"
# shellcheck source=tests/writing.sh
source "$srcdir/writing.sh"
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
            "$PYTHON" "$abs_top_srcdir/tests/stress.py" "$uri" --ops 150 \
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
