#!/usr/bin/env bash
# A bitmap is marked as in use before the first change and not before, until the
# client is idle or has gone.  After a crash nobody believes it unless it is
# exact.  A bitmap that nobody believes stays as it is.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# in_use NAME: does QEMU say so?
cat > in-use.py <<'END'
import json, subprocess, sys
info = json.loads (subprocess.check_output (
    ["qemu-img", "info", "-U", "--output=json", "x.qcow2"]))
bitmaps = info["format-specific"]["data"].get ("bitmaps", [])
flags = {b["name"]: b["flags"] for b in bitmaps}[sys.argv[1]]
sys.exit (0 if "in-use" in flags else 1)
END
in_use () { "$PYTHON" in-use.py "$1"; }
closed () { ! in_use "$1"; }

cat > client.py <<'END'
import nbd, subprocess, sys, time
uri = sys.argv[1]
def in_use (name):
    return subprocess.call ([sys.executable, "in-use.py", name]) == 0
def marked_by_write (at):
    # On a busy machine the mark may have gone again before qemu-img looks.
    for i in range (20):
        h.pwrite (b"x" * 4096, at)
        if in_use ("b"):
            return True
    return False
h = nbd.NBD ()
h.connect_uri (uri)
h.pread (65536, 0)
h.flush ()
assert not in_use ("b"), "marked by a reader"
assert marked_by_write (1 << 20), "not marked by a write"
assert not in_use ("off"), "disabled, but marked"
for i in range (1200):
    time.sleep (0.1)
    if not in_use ("b"):
        break
assert not in_use ("b"), "still marked when idle"
assert marked_by_write (2 << 20), "not marked again"
h.shutdown ()
assert not in_use ("b"), "still marked without a client"
END

cat > killed.py <<'END'
import nbd, os, signal, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
h.pwrite (b"k" * 4096, 5 << 20)
h.flush ()
os.kill (int (sys.argv[2]), signal.SIGKILL)
END

for opts in cluster_size=64K data_file=x.data,data_file_raw=on; do
    new_image -o $opts x.qcow2 16M
    qemu-img bitmap --add x.qcow2 b
    qemu-img bitmap --add --disable x.qcow2 off
    serve s --filter="$qcow2ext" file x.qcow2
    "$PYTHON" client.py "$(uri s)"
    stop s
    clean
    expect_fail "'?b'?.*'?off'?|'?off'?.*'?b'?" nbdkit -r -U - \
                --filter="$qcow2ext" file x.qcow2 qcow2ext-bitmap=wrong \
                --run true

    serve s --filter="$qcow2ext" file x.qcow2
    "$PYTHON" killed.py "$(uri s)" "$(< s.pid)"
    # Its locks go with its last thread, which takes a while under valgrind.
    wait_until "the locks are dropped" qemu-img info -f qcow2 x.qcow2
    no_errors
    in_use b || fail "a killed server leaves the bitmap as if it was right"
    closed off
    qemu-io -f qcow2 -r -c 'read -P 107 5M 4096' x.qcow2 > qemu-io.out
    ! grep 'verification failed' qemu-io.out || fail "flushed data is lost"
    expect_fail 'in use|inconsistent' nbdkit -r -U - --filter="$qcow2ext" \
                file x.qcow2 qcow2ext-bitmap=b --run 'nbdinfo "$uri"'

    # Kept as it is by another session.
    rm -f s.pid
    serve_log s --filter="$qcow2ext" file x.qcow2
    for i in 1 2; do
        nbdsh -u "$(uri s)" -c 'h.pwrite (b"y" * 4096, 9 << 20)' \
              -c 'h.shutdown ()'
    done
    stop s
    # It does not record, which is said once, and of no other.
    [ "$(grep -c 'warning: .*bitmap "b" .*does not record' s.log)" = 1 ] &&
        ! grep 'bitmap "off"' s.log || fail "which bitmap does not record?"
    in_use b || fail "what was lost has become right"
    closed off
    no_errors
    qemu-img bitmap --remove x.qcow2 b
    qemu-img check -q -r leaks -f qcow2 x.qcow2
    clean
done
