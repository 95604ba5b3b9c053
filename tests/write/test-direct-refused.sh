#!/usr/bin/env bash
# Direct I/O: refused where the file system does not have it, and where
# something lies between the filter and the file.  What the file plugin's cache=
# does not do is said.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
preload=LD_PRELOAD
[ -z "$QCOW2EXT_TEST_UNDER" ] || preload=UNDER_PRELOAD
requires_direct_io
direct="qcow2ext-direct=true"

# said PATTERN LOG
said ()
{
    grep -q -e "$1" "$2" || {
        cat "$2"
        fail "no message \"$1\""
    }
}

new_image x.qcow2 1M
! (export $preload="$abs_top_builddir/tests/preload/.libs/no-direct.so"
   writing true file x.qcow2 $direct) 2> log || fail "started"
said 'direct I/O is not possible' log
! writing true memory 1M $direct 2> log || fail "started"
said 'one local file' log

# What is below is another disk.
(head -c 4096 /dev/zero; cat x.qcow2) > moved
serve_log s --filter="$qcow2ext" --filter=offset file moved offset=4096 $direct
! nbdsh -u "$(uri s)" -c 'h.pread (512, 0)' 2> err || fail "not refused"
said 'is not this file' s.log
stop s

# It only seems to be the same: reading can be done, as nothing has changed.
serve_log s --filter="$qcow2ext" --filter=cow file x.qcow2 $direct
nbdsh -u "$(uri s)" -c 'assert h.pread (512, 0) == bytes (512)'
! nbdsh -u "$(uri s)" -c 'h.pwrite (b"x" * 512, 0)' 2> err || fail "written"
said 'direct.*cannot be written to' s.log
stop s
clean

serve_log s --filter="$qcow2ext" file x.qcow2 cache=none
stop s
said 'warning: cache=none' s.log
serve_log s --filter="$qcow2ext" file x.qcow2 cache=none $direct
stop s
! grep -q cache=none s.log || fail "a warning that is wrong"
