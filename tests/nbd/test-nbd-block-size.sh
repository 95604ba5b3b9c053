#!/usr/bin/env bash
# A server that takes only whole blocks, and not too many in a request, holds
# the data file: every request keeps to that, whatever the client asks for.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
nbdkit_args=(qcow2ext-data-file="$(uri far)")

# Clusters smaller and larger than blocks; whole blocks up to the end.
for cluster in 512 65536; do
    for raw in off on; do
        kind=plain
        [ $raw = off ] || kind=raw
        new_image -o "cluster_size=$cluster,data_file=x.data" \
                  -o data_file_raw=$raw x.qcow2 "$(size_for $cluster)"
        truncate -s "$(size_for $cluster)" x.data
        truncate -s %4096 x.data
        serve far --filter=blocksize-policy file x.data \
              blocksize-minimum=4096 blocksize-preferred=4096 \
              blocksize-maximum=65536 blocksize-error-policy=error
        stress_image $kind $cluster
        stop far
    done
done
