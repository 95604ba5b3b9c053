#!/usr/bin/env bash
# An image that is replaced between a client's connecting and its first write is
# not written to, and neither is what has its name then: a device, say, on which
# the proof would take a cluster.  The message is about that, not about filters.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires strace --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

truncate -s 8M first second
loop_device first
first=$device
loop_device second
second=$device
new_image -o data_file=x.data x.qcow2 8M
cat x.qcow2 > "$first"
rm x.qcow2

# replaced NBDKIT-ARGS...: x.qcow2 leads to what y.qcow2 led to.
replaced ()
{
    serve_log s --filter="$qcow2ext" file x.qcow2 "$@"
    strace -f -q -o strace.log -e trace=pwrite64 -p "$(< s.pid)" &
    while ! grep -q '^TracerPid:.*[1-9]' "/proc/$(< s.pid)/status"; do
        _running $! || fail strace
    done
    nbdsh -u "$(uri s)" -c '
import os
assert h.pread (512, 0) == bytes (512)
os.rename ("y.qcow2", "x.qcow2")
try:
    h.pwrite (b"x" * 512, 0)
    raise AssertionError ("it was written to")
except nbd.Error as e:
    assert e.errno == "EPERM", e
'
    stop s
    wait
    ! grep pwrite64 strace.log || fail "something was written"
    grep "renamed, removed or replaced" s.log || fail "no message"
    ! grep filter s.log || fail "filters are blamed"
}

ln -s "$first" x.qcow2
ln -s "$second" y.qcow2
replaced qcow2ext-data-file=x.data

rm x.qcow2
for opts in cluster_size=64K data_file=x.data; do
    new_image -o $opts x.qcow2 8M
    cp x.qcow2 y.qcow2
    replaced
done
