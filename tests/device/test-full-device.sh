#!/usr/bin/env bash
# An image that fills its block device: what has a cluster of its own can be
# written to, and what needs a new one fails for lack of space.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

mkimage x.qcow2 --size 4M --data 0-20=7 --reference want.raw
# As far as the file goes, all is in use.
[ $(($(stat -c %s x.qcow2) % 65536)) = 0 ] || fail "not whole clusters"
loop_device x.qcow2

serve s --filter="$qcow2ext" file "$device"
nbdsh -u "$(uri s)" -c '
want = bytearray (open ("want.raw", "rb").read ())
def write (data, at):
    h.pwrite (data, at)
    want[at:at + len (data)] = data
write (b"a" * 4096, 0)
write (b"b" * 65536, 3 * 65536)
write (b"c" * 3000, 20 * 65536 + 777)
h.flush ()
try:
    h.pwrite (b"d" * 65536, 30 * 65536)
    raise AssertionError ("there was space")
except nbd.Error as e:
    assert e.errno == "ENOSPC", e
write (b"e" * 100, 65536 * 5 - 50)
h.flush ()
assert h.pread (len (want), 0) == want
# One that is given back can be had again.
h.trim (65536, 9 * 65536)
want[9 * 65536:10 * 65536] = bytes (65536)
h.flush ()
h.flush ()
write (b"f" * 65536, 31 * 65536)
h.flush ()
assert h.pread (len (want), 0) == want
open ("want.raw", "wb").write (want)
h.shutdown ()
'
stop s
blockdev --flushbufs "$device" || sync
clean
identical want.raw
