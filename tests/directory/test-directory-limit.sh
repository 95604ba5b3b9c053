#!/usr/bin/env bash
# dir=: running out of descriptors is a message, concerns the client that asks
# for one more image, and is over when others have gone.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

mkdir store
qemu-img create -q -f qcow2 image 1M
for i in {0..39}; do
    cp image "store/$i"
done
cat > clients.py <<'END'
import nbd, sys, time
# All connections are there before images take the descriptors.
handles = []
for i in range (40):
    h = nbd.NBD ()
    h.set_opt_mode (True)
    h.connect_unix (sys.argv[1])
    h.set_export_name (str (i))
    handles.append (h)
n = 0
try:
    while n < 40:
        handles[n].opt_go ()
        n += 1
except nbd.Error as e:
    print (n, e)
assert 2 < n < 40, n
for h in handles[: n]:
    assert h.pread (65536, 0) == bytes (65536)
# There is room again, as soon as the server has seen that they left.
for h in handles[: n // 2]:
    h.shutdown ()
for wait in range (100):
    try:
        handles[39].opt_go ()
        break
    except nbd.Error:
        time.sleep (0.1)
handles[39].pwrite (b"1" * 65536, 0)
assert handles[39].pread (65536, 0) == b"1" * 65536
END
# An image takes two: one of the plugin and one of ours.  Either may be the one
# that is too many.
for limit in 201 200; do
    ulimit -n $limit
    serve_log s --filter="$qcow2ext" file dir=store
    timeout 120 "$PYTHON" clients.py "$tmp/s.sock" ||
        { cat s.log; fail "clients"; }
    stop s
    grep 'too many files are open: let the server have more' s.log
    qemu-img check store/39
    cp image store/39
done
