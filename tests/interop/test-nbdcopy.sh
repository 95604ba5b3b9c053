#!/usr/bin/env bash
# nbdcopy out of an export of ours, into one, and from one into the other.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires nbdcopy --version
requires_nbd_module
cd "$tmp"

mkimage from.qcow2 --size 24M --data 0-60=7 --data 100-220=9 --data 383=1 \
        --reference from.raw
for opts in cluster_size=64K "data_file=x.data,data_file_raw=on"; do
    serve from -r --filter="$qcow2ext" file from.qcow2
    for args in '' '--destination-is-zero --flush' \
                '--synchronous --connections=1'; do
        new_image -o "$opts" x.qcow2 24M
        [[ $args = *zero* ]] || qemu-io -f qcow2 -c 'write -q 3M 9M' x.qcow2
        serve to --filter="$qcow2ext" file x.qcow2
        # shellcheck disable=SC2086
        nbdcopy $args "$(uri from)" "$(uri to)"
        # While both are served still.
        nbdcopy "$(uri to)" out.raw
        cmp from.raw out.raw
        rm out.raw
        nbdcopy --allocated "$(uri to)" out.raw
        cmp from.raw out.raw
        stop to
        clean
        identical from.raw
    done
    stop from
done
same_file from.raw x.data
