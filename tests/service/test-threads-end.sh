#!/usr/bin/env bash
# The server is told to end when there is no space for what a client has left:
# it says so, and no thread of the filter is still there when that is unloaded.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_libnbd
requires_nbd_module
cd "$tmp"

# A backing file on an NBD server, of which a thread awaits the answers.
truncate -s 4M base.raw
serve d file base.raw
qemu-img create -q -f qcow2 -b "$(uri d)" -F raw x.qcow2 4M

libraries=$abs_top_builddir/tests/preload/.libs
export FAIL_IO=$tmp/control
preload=LD_PRELOAD
[ -z "$QCOW2EXT_TEST_UNDER" ] || preload=UNDER_PRELOAD
env "$preload=$libraries/fail-io.so $libraries/late-unload.so" \
    nbdkit -f -P "$tmp/s.pid" -U "$tmp/s.sock" --filter="$qcow2ext" \
    file x.qcow2 qcow2ext-backing-file="$(uri d)" < /dev/null > s.log 2>&1 &
server=$!
cleanup_fn _kill_pid $server
wait_until "there is a pid file" [ -s s.pid ]
nbdsh -u "$(uri s)" -c '
h.pwrite (b"x" * 4096, 0)
open ("control", "w").write ("pwrite x.qcow2 0 28")
h.shutdown ()
'
kill $server
wait $server || fail "the server has failed: $?"
cat s.log
grep 'may not be on disk: No space' s.log
stop d
