#!/usr/bin/env bash
# ./quickstart must keep its promises: it is the first thing that anyone runs.

# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires qemu-io --version
requires nbdinfo --version
requires nbdcopy --version

quickstart=$abs_top_srcdir/quickstart

# The tree that is being tested is built already.  The make that runs this
# test must not pass its options and its list of tests on to another one.
export QUICKSTART_BUILDDIR="$abs_top_builddir"
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES TESTS TEST_LOGS
# Its temporary files go where they can be counted.
mkdir "$tmp/t"
export TMPDIR="$tmp/t"
cd "$tmp"

"$quickstart" --help | tee help.out
grep -q '^Usage: ./quickstart' help.out
expect_fail 'Usage' "$quickstart" --no-such-option
expect_fail 'no-such-file.qcow2: no such file' "$quickstart" no-such-file.qcow2

# The sample.
timeout 300 "$quickstart" </dev/null >sample.out 2>&1 || {
    cat sample.out
    fail "the sample failed"
}
cat sample.out
grep -q 'export-size: 1073741824' sample.out
grep -Eq '^ *0 +1048576 +0 +data' sample.out
grep -Eq 'hole,zero' sample.out
grep -q 'Images are identical' sample.out

# An image of the user's.
qemu-img create -q -f qcow2 -o data_file=user.raw,data_file_raw=on user.qcow2 4M
qemu-io -f qcow2 -c 'write -q -P 0x55 1M 64k' user.qcow2

expect_fail 'unrecognized option' "$quickstart" user.qcow2 -r --no-such-option

"$quickstart" user.qcow2 -r -t 4 </dev/null >user.out 2>&1 &
pid=$!
cleanup_fn _kill_pid "$pid"
for ((i = 0; i < 300; i++)); do
    grep -q '^Ctrl-C ends it' user.out && break
    _running "$pid" || break
    sleep 0.2
done
cat user.out
user_uri=$(sed -n 's/^URI: //p' user.out)
[ -n "$user_uri" ] || fail "no URI was printed"
[ "$(nbdinfo --size "$user_uri")" = 4194304 ]
qemu-img compare -f qcow2 -F raw user.qcow2 "$user_uri"

kill "$pid"
wait "$pid" || fail "quickstart's exit status after it was told to stop: $?"
grep -q '^Stopped' user.out

ls -A "$tmp/t"
[ -z "$(ls -A "$tmp/t")" ] || fail "temporary files were left behind"
