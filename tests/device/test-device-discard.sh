#!/usr/bin/env bash
# Trimming and zeroing reach a device: it reads as zeros there, and what was
# trimmed takes no space below it any more.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

# used FILE: in KiB; the file system may take a while to say so.
used ()
{
    sync "$1"
    du -k "$1" | cut -f 1
}

for raw in on off; do
    truncate -s 16M data-$raw
    loop_device data-$raw
    new_image -o "data_file=$device,data_file_raw=$raw" x.qcow2 16M
    serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$device"
    nbdsh -u "$(uri s)" -c '
h.pwrite (b"x" * (16 << 20), 0)
h.flush ()
h.zero (2 << 20, 1 << 20, nbd.CMD_FLAG_NO_HOLE)
h.trim (8 << 20, 4 << 20)
h.zero (1 << 20, 14 << 20)
h.zero (1000, 777)
h.flush ()
want = bytearray (b"x" * (16 << 20))
for at, length in (1 << 20, 2 << 20), (4 << 20, 8 << 20), \
                  (14 << 20, 1 << 20), (777, 1000):
    want[at:at + length] = bytes (length)
assert h.pread (len (want), 0) == want
open ("want.raw", "wb").write (want)
'
    stop s
    clean
    identical want.raw
    [ $raw = off ] || cmp want.raw "$device"
    used=$(used data-$raw)
    [ "$used" -le $((8 << 10)) ] || fail "raw $raw: still takes ${used}K"
done

truncate -s 24M disk
loop_device disk
qemu-img create -q -f qcow2 "$device" 16M
serve s --filter="$qcow2ext" file "$device"
nbdsh -u "$(uri s)" -c 'h.pwrite (b"x" * (16 << 20), 0)' -c 'h.flush ()' \
      -c 'h.trim (12 << 20, 2 << 20)' -c 'h.flush ()'
stop s
clean "$device"
used=$(used disk)
[ "$used" -le $((5 << 10)) ] || fail "internal: still takes ${used}K"
