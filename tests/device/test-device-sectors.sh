#!/usr/bin/env bash
# Devices with sectors of 4096 bytes, as the data file and as the image: requests
# of any alignment, with the zeroing of the device and without.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires strace --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

# run NBDKIT-ARGS...
run ()
{
    truncate -s 0 model.raw
    truncate -s 8M model.raw
    # A sanitizer's leak check does not work under strace.
    ASAN_OPTIONS=${inject:+detect_leaks=0} \
        serve s --filter="$qcow2ext" file "$@"
    if [ "$inject" ]; then
        strace -f -q -o strace.log -e trace=fallocate \
               -e inject=fallocate:error=EOPNOTSUPP -p "$(< s.pid)" &
        while ! grep -q '^TracerPid:.*[1-9]' "/proc/$(< s.pid)/status"; do
            _running $! || fail strace
        done
    fi
    stress "$(uri s)" --ops 300 --seed 11 --size 8M --model-in model.raw \
           --model-out model.raw || fail "$*"
    stop s
    wait
    # Of clusters that are smaller than a sector, the device is asked nothing.
    [ -z "$inject" ] || [ "$opts" = cluster_size=1K ] ||
        grep -q INJECTED strace.log || fail "nothing injected"
}

truncate -s 8M data
loop_device data -b 4096
data=$device
truncate -s 16M disk
loop_device disk -b 4096
disk=$device
[ "$(blockdev --getss "$data")" = 4096 ] || fail "not such a device"

for inject in '' yes; do
    # An image with clusters smaller than a sector, too.
    for opts in cluster_size=64K cluster_size=1K; do
        qemu-img create -q -f qcow2 -o "$opts" image.qcow2 8M
        dd if=/dev/zero of="$disk" bs=1M count=16 status=none
        dd if=image.qcow2 of="$disk" bs=1M status=none
        run "$disk"
        clean "$disk"
        identical model.raw "$disk"
    done
    dd if=/dev/zero of="$data" bs=1M count=8 status=none
    opts=data_file_raw=on
    new_image -o "data_file=$data,$opts" x.qcow2 8M
    run x.qcow2 qcow2ext-data-file="$data"
    clean
    identical model.raw
    cmp model.raw "$data"
done
