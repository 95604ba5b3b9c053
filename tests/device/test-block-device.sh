#!/usr/bin/env bash
# A block device as the data file, and as the qcow2 file.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

run ()
{
    local size=$1
    shift
    serve s --filter="$qcow2ext" file "$@"
    stress "$(uri s)" --ops 300 --seed 3 --size "$size" --model-in model.raw \
           --model-out model.raw || fail "$*"
    stop s
}

for raw in off on; do
    truncate -s 8M "backing-$raw"
    loop_device "backing-$raw"
    new_image -o "data_file=$device,data_file_raw=$raw" x.qcow2 8M
    truncate -s 0 model.raw
    truncate -s 8M model.raw
    run 8M x.qcow2 qcow2ext-data-file="$device"
    clean
    identical model.raw
    [ $raw = off ] || cmp model.raw "$device" || fail "not the disk"

    # One that is larger is left alone where the disk is not: here the last
    # cluster ends behind the disk.
    size=$(((5 << 20) - 1536))
    new_image -o "data_file=$device,data_file_raw=$raw" x.qcow2 $size
    # QEMU's L2 tables say that what the device holds is the raw disk.
    yes | dd of="$device" bs=1M count=8 iflag=fullblock status=none
    dd if=/dev/zero of="$device" bs=512 count=$((size / 512)) status=none
    cp "$device" before
    serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$device"
    nbdsh -u "$(uri s)" -c 'h.pwrite (bytes (512), h.get_size () - 512)'
    stop s
    truncate -s 0 model.raw
    truncate -s $size model.raw
    run $size x.qcow2 qcow2ext-data-file="$device"
    clean
    identical model.raw
    cmp -i $size before "$device" || fail "written to behind the disk"

    # One that is too small.
    new_image -o "data_file=small.data,data_file_raw=$raw" x.qcow2 9M
    expect_fail "too small" nbdkit -U - --filter="$qcow2ext" file x.qcow2 \
                qcow2ext-data-file="$device" --run "nbdinfo --size \"\$uri\""
done

truncate -s 24M disk
loop_device disk
for opts in cluster_size=64K cluster_size=4K; do
    qemu-img create -q -f qcow2 -o $opts "$device" 8M
    truncate -s 0 model.raw
    truncate -s 8M model.raw
    run 8M "$device"
    # There is no end of file to go by: leaks are none all the same.
    clean "$device"
    identical model.raw "$device"
    [ "$(blockdev --getsize64 "$device")" = $((24 << 20)) ]
done
