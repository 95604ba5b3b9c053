#!/usr/bin/env bash
# Random writing to images with one and two internal snapshots, whose content
# stays what it was.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for opts in cluster_size=512 cluster_size=4096 cluster_size=64k \
            cluster_size=2M cluster_size=64k,extended_l2=on \
            cluster_size=64k,compat=0.10 cluster_size=4096,lazy_refcounts=on
do
    case $opts in
        *=512*) cluster=512 ;;
        *=4096*) cluster=4096 ;;
        *=64k*) cluster=65536 ;;
        *) cluster=2097152 ;;
    esac
    size=$(size_for $cluster)
    new_image -o "$opts" x.qcow2 "$size"
    scribble "$stress_seed" 20 "$size"
    qemu-img snapshot -c one x.qcow2
    cp x.qcow2 saved.qcow2
    snapshots=(one)
    stress_image internal $cluster
    # A second one, of what we wrote.
    qemu-img snapshot -c two x.qcow2
    snapshots=(one two)
    stress_image internal $cluster
    # QEMU can let go of them and go back to them.
    qemu-img snapshot -d one x.qcow2
    clean x.qcow2
    qemu-img snapshot -a two x.qcow2
    clean x.qcow2
    identical snapshot-two.raw
done
