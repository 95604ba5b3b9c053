#!/usr/bin/env bash
# fio writes at random, several requests at a time, and verifies checksums.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires fio --enghelp=nbd
cd "$tmp"

for opts in cluster_size=64K cluster_size=4K \
            "data_file=x.data,data_file_raw=on"; do
    new_image -o "$opts" x.qcow2 24M
    serve s --filter="$qcow2ext" file x.qcow2
    timeout 60 fio --name=verify --ioengine=nbd --uri="$(uri s)" \
            --rw=randwrite --bsrange=512-128k --bs_unaligned=0 --size=24M \
            --iodepth=16 --verify=crc32c --verify_fatal=1 --fsync=50 \
            --do_verify=1 --randseed=7 > fio.log 2>&1 || {
        cat fio.log
        fail "fio: $opts"
    }
    grep -q 'err= 0' fio.log || fail "fio did nothing"
    # fio does not wait until the server lets go of the image.
    stop s
    clean
    [ "$(qemu-img map -f qcow2 x.qcow2 | wc -l)" -gt 1 ] || fail "no data"
done
