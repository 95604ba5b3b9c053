#!/usr/bin/env bash
# Copying a disk into the export, with qemu-img and with nbdcopy.
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
for opts in cluster_size=64K cluster_size=4K data_file=x.data \
            "data_file=x.data,data_file_raw=on"; do
    for tool in 'qemu-img convert -n -f raw -O raw from.raw "$uri"' \
                'qemu-img convert -n -W -m 8 -f raw -O raw from.raw "$uri"' \
                'nbdcopy from.raw "$uri"' \
                'nbdcopy --flush -C 1 from.raw "$uri"'; do
        echo "=== $opts: $tool"
        new_image -o "$opts" x.qcow2 24M
        # What is there must go.
        qemu-io -f qcow2 -c 'write -P 5 3M 9M' x.qcow2 > /dev/null
        writing "$tool" file x.qcow2
        clean
        identical from.raw
        case $opts in
            *raw=on*) same_file from.raw x.data ;;
        esac
    done
done
