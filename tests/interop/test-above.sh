#!/usr/bin/env bash
# The filters that people put above serve the same disk: partition, cow, cache,
# readahead, blocksize, delay, retry, multi-conn and many more.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires sfdisk --version
requires_nbd_module
cd "$tmp"

mixed_file disk.raw 4194304
sfdisk -q disk.raw <<< '2048,4096' || fail sfdisk
qemu-img convert -c -O qcow2 disk.raw z.qcow2
qemu-img create -q -f qcow2 -o data_file=d.data,data_file_raw=on d.qcow2 4M
qemu-img convert -n -f raw -O qcow2 disk.raw d.qcow2
tail -c +1048577 disk.raw | head -c 2M > part.raw

above ()
{
    local ref=$1 image=$2
    shift 2
    local filters=() args=()
    while [ $# -gt 0 ]; do
        case $1 in
            *=*) args+=("$1") ;;
            *) filters+=(--filter="$1") ;;
        esac
        shift
    done
    echo "=== ${filters[*]} ${args[*]} $image"
    timeout -k 5 60 nbdkit -r -U - "${filters[@]}" --filter="$qcow2ext" \
            file "$image" "${args[@]}" \
            --run "check_disk \"\$uri\" $ref --reads 40 --connections 4"
}

for image in z.qcow2 d.qcow2; do
    above part.raw $image partition partition=1
    above part.raw $image offset offset=1M range=2M
    above disk.raw $image cow
    above disk.raw $image cache
    above disk.raw $image readahead
    above disk.raw $image blocksize minblock=4096
    above disk.raw $image blocksize minblock=64K maxdata=64K
    above disk.raw $image stats statsfile=stats.txt
    above disk.raw $image log logfile=log.txt
    above disk.raw $image error error-rate=0
    above disk.raw $image delay rdelay=1ms
    above disk.raw $image retry
    above disk.raw $image protect protect=0-511
    above disk.raw $image exportname exportname=disk
    above disk.raw $image multi-conn multi-conn-mode=auto
    above disk.raw $image noparallel
    above disk.raw $image nocache
    # nbdkit 1.46 has it no more.
    if [ "$(nbdkit_minor)" -lt 46 ]; then
        above disk.raw $image cacheextents
    fi
    above part.raw $image cow partition partition=1
    above disk.raw $image readahead cache retry
done
[ -s stats.txt ] || fail "no statistics"
grep -q Read log.txt || fail "no log"

# Writes to a copy-on-write overlay do not reach the image.
md5sum d.qcow2 d.data z.qcow2 > before
for image in z.qcow2 d.qcow2; do
    timeout 60 nbdkit -U - --filter=cow --filter="$qcow2ext" file $image \
            --run "\"\$PYTHON\" -m nbd -u \"\$uri\" -c 'h.pwrite (b\"x\" * 100000, 12345)
assert h.pread (100000, 12345) == b\"x\" * 100000'" || fail "cow over $image"
done
md5sum -c --quiet before

# A retry reopens the layer, also after errors.
timeout 60 nbdkit -r -U - --filter=retry --filter=error \
        --filter="$qcow2ext" file z.qcow2 retry-delay=1 retries=20 \
        error-pread-rate=10% \
        --run "check_disk \"\$uri\" disk.raw --no-map --connections 1 --reads 30"
