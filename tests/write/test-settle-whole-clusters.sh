#!/usr/bin/env bash
# What the last client leaves is a whole number of clusters, so that a layer
# below that serves only whole blocks does not cut off what was written last.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for options in cluster_size=4096 cluster_size=64k,extended_l2=on; do
    rm -f x.qcow2
    new_image -o $options x.qcow2 8M
    truncate -s %64k x.qcow2
    serve s --filter="$qcow2ext" --filter=blocksize file x.qcow2 minblock=4096
    for at in 1000000 3000000; do
        nbdsh -u "$(uri s)" -c "h.pwrite (b'x' * 5000, $at)" -c 'h.shutdown ()'
        clean
        size=$(stat -c %s x.qcow2)
        [ $((size % 4096)) = 0 ] || fail "$options: $size bytes"
        nbdsh -u "$(uri s)" \
              -c "assert h.pread (5000, $at) == b'x' * 5000" -c 'h.shutdown ()'
    done
    stop s
done
