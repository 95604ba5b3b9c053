#!/usr/bin/env bash
# Where the space of a raw data file cannot be given back, trim does nothing: it
# does not write zeros instead.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires strace -f -o /dev/null true
requires_nbd_module
cd "$tmp"

new_image -o data_file=x.data,data_file_raw=on x.qcow2 16M
# A sanitizer's leak check does not work under strace.
ASAN_OPTIONS=detect_leaks=0 serve s --filter="$qcow2ext" file x.qcow2
strace -f -q -o strace.log -e trace=fallocate,pwrite64 \
       -e inject=fallocate:error=EOPNOTSUPP -p "$(< s.pid)" &
while ! grep -q '^TracerPid:.*[1-9]' "/proc/$(< s.pid)/status"; do
    _running $! || fail strace
done
nbdsh -u "$(uri s)" -c '
h.pwrite (b"x" * (8 << 20), 0)
h.flush ()
before = sum ("pwrite64" in line for line in open ("strace.log"))
h.trim (16 << 20, 0)
h.trim (1000, 100)
h.flush ()
after = sum ("pwrite64" in line for line in open ("strace.log"))
assert before > 0
assert after - before <= 2, "%d writes" % (after - before)
assert h.pread (8 << 20, 0) == b"x" * (8 << 20)
# Zeroing does zero.
h.zero (1 << 20, 0)
h.flush ()
assert h.pread (2 << 20, 0) == bytes (1 << 20) + b"x" * (1 << 20)
'
stop s
wait
grep -q INJECTED strace.log || fail "nothing was injected"
clean
cmp -n $((1 << 20)) x.data /dev/zero
