#!/usr/bin/env bash
# Random writing with direct I/O: on the file system here, and on one whose
# device has sectors of 4096 bytes, where smaller clusters share a sector.
# All other stress tests can be run so, too: QCOW2EXT_TEST_DIRECT=1.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
QCOW2EXT_TEST_DIRECT=1
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
requires_direct_io
stress_ops=$((stress_ops / 3))

stress_all ()
{
    local kind cluster opts
    while read -r kind cluster opts; do
        subclusters=1
        [[ $opts != *extended* ]] || subclusters=32
        new_image -o "$opts" x.qcow2 "$(size_for "$cluster")"
        stress_image "$kind" "$cluster"
    done <<'END'
internal 512 cluster_size=512
internal 65536 compat=0.10
internal 16384 cluster_size=16K,extended_l2=on
raw 65536 data_file=x.data,data_file_raw=on
raw 512 data_file=x.data,data_file_raw=on,cluster_size=512
plain 4096 data_file=x.data,cluster_size=4K
END
}

stress_all

if losetup -f > /dev/null 2>&1 && [ -w /dev/loop-control ] &&
   truncate -s 256M fs && loop_device fs -b 4096 &&
   mkfs.ext4 -q "$device" > mkfs.log 2>&1 && mkdir mnt &&
   mount "$device" mnt
then
    cleanup_fn umount "$tmp/mnt"
    cd mnt
    [ "$(blockdev --getss "$device")" = 4096 ] || fail "not such a device"
    stress_all
    # QEMU's direct I/O agrees on what is there.
    cd ..
else
    echo "no file system on a device with sectors of 4096 bytes can be made here"
fi
