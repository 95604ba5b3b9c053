#!/usr/bin/env bash
# A plugin that takes one call at a time gets one at a time, although clients of
# several exports come and go while another one reads.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
plugin=$abs_top_builddir/tests/interop/.libs/nbdkit-connections-plugin.so

cat > client.py <<'END'
import nbd, sys, threading
base = "nbd+unix:///%s?socket=" + sys.argv[1]
def read ():
    h = nbd.NBD ()
    h.connect_uri (base % "")
    for i in range (400):
        h.pread (65536, i % 100 * 65536)
    h.shutdown ()
reader = threading.Thread (target=read)
reader.start ()
times = 0
while reader.is_alive () or times < 10:
    h = nbd.NBD ()
    h.connect_uri (base % "snapshot:1")
    h.pread (512, 0)
    h.shutdown ()
    times += 1
reader.join ()
END

new_image x.qcow2 16M
qemu-io -f qcow2 -c 'write -P 1 0 8M' x.qcow2 > /dev/null
qemu-img snapshot -c one x.qcow2
serve_log s --filter="$qcow2ext" "$plugin" path=x.qcow2 qcow2ext-exports=all
timeout 200 "$PYTHON" client.py "$tmp/s.sock" || { cat s.log; exit 1; }
stop s
cat s.log
! grep -q 'two calls at once' s.log || fail "calls overlap"
