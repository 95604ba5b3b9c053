#!/usr/bin/env bash
# Another program has opened the device exclusively, as an active volume group
# on it does: the kernel refuses to discard or zero what it still has in its
# cache.  Trimming and zeroing go on by other means.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

truncate -s 16M data
loop_device data
for raw in on off; do
    new_image -o "data_file=$device,data_file_raw=$raw" x.qcow2 16M
    serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$device"
    DEVICE=$device nbdsh -u "$(uri s)" -c '
import os
holder = os.open (os.environ["DEVICE"], os.O_RDONLY | os.O_EXCL)
want = bytearray (b"x" * (16 << 20))
h.pwrite (want, 0)
def zeroed (at, length):
    want[at:at + length] = bytes (length)
    assert h.pread (len (want), 0) == want
h.zero (2 << 20, 1 << 20, nbd.CMD_FLAG_NO_HOLE)
zeroed (1 << 20, 2 << 20)
h.zero (1 << 20, 14 << 20)
zeroed (14 << 20, 1 << 20)
h.trim (8 << 20, 4 << 20)
h.flush ()
want = bytearray (h.pread (len (want), 0))
assert want[4 << 20:12 << 20] in (bytes (8 << 20), b"x" * (8 << 20))
os.close (holder)
open ("want.raw", "wb").write (want)
'
    stop s
    clean
    identical want.raw
    [ $raw = off ] || cmp want.raw "$device"
done
