#!/usr/bin/env bash
# Random writing to images of both versions and all cluster sizes that hold their
# own data, empty, partly written, and preallocated ones.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for cluster in 512 4096 65536 2097152; do
    size=$(size_for $cluster)
    for opts in compat=0.10 compat=1.1 compat=1.1,preallocation=metadata \
                compat=1.1,preallocation=falloc compat=1.1,lazy_refcounts=on
    do
        new_image -o "$opts,cluster_size=$cluster" x.qcow2 "$size"
        case $opts in
            *prealloc*) ;;
            *) scribble "$stress_seed" 20 "$size" ;;
        esac
        stress_image internal $cluster
    done
done
