#!/usr/bin/env bash
# Of an unaligned zero or trim on a device with sectors of 4096 bytes, only the
# two ends are written (or left alone): the rest is the device's own zeroing.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires strace --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

# used FILE: in KiB; the file system may take a while to say so.
used ()
{
    sync "$1"
    du -k "$1" | cut -f 1
}

truncate -s 16M data
loop_device data -b 4096
new_image -o "data_file=$device,data_file_raw=on" x.qcow2 16M
# A sanitizer's leak check does not work under strace.
ASAN_OPTIONS=detect_leaks=0 \
    serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$device"
nbdsh -u "$(uri s)" -c 'h.pwrite (b"x" * (16 << 20), 0)' -c 'h.flush ()'
strace -f -q -o strace.log -e trace=pwrite64,fallocate -p "$(< s.pid)" &
while ! grep -q '^TracerPid:.*[1-9]' "/proc/$(< s.pid)/status"; do
    _running $! || fail strace
done
nbdsh -u "$(uri s)" -c '
want = bytearray (b"x" * (16 << 20))
def zeroed (at, length):
    want[at:at + length] = bytes (length)
h.zero ((2 << 20) + 1000, (1 << 20) + 777)
zeroed ((1 << 20) + 777, (2 << 20) + 1000)
h.zero ((2 << 20) + 512, (4 << 20), nbd.CMD_FLAG_NO_HOLE)
zeroed (4 << 20, (2 << 20) + 512)
# Within a sector, and up to its end.
h.zero (100, 4096 * 7 + 5)
zeroed (4096 * 7 + 5, 100)
h.zero (1000, 4096 * 9 - 1000)
zeroed (4096 * 9 - 1000, 1000)
h.flush ()
assert h.pread (len (want), 0) == want
at, length = (8 << 20) + 777, 6 << 20
h.trim (length, at)
h.flush ()
got = h.pread (len (want), 0)
for i in range (len (want)):
    if got[i] != want[i]:
        assert got[i] == 0 and at <= i < at + length, i
assert got[at + 4096:at + length - 4096] == bytes (length - 8192)
open ("want.raw", "wb").write (got)
'
stop s
wait
bytes=$(sed -n 's/.*pwrite64(.*) = \([0-9]*\)$/\1/p' strace.log |
        awk '{ n += $1 } END { print n + 0 }')
calls=$(grep -c fallocate strace.log) || true
[ "$calls" -ge 3 ] || fail "the device was asked $calls times only"
# The ends, and metadata.
[ "$bytes" -le 65536 ] || fail "$bytes bytes were written"
clean
cmp want.raw "$device"
used=$(used data)
[ "$used" -le $((9 << 10)) ] || fail "still takes ${used}K"
