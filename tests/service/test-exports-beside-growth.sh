#!/usr/bin/env bash
# Clients connect to a snapshot while another makes the image's file larger: the
# file is known as the one below at each of its sizes.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
requires_direct_io

cat > writes.py <<'END'
import nbd, os, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
for i in range (1 << 30):
    if os.path.exists ("enough"):
        break
    h.pwrite (b"x" * 4096, i << 12)
h.shutdown ()
END

new_image -o cluster_size=4K x.qcow2 1T
qemu-img snapshot -c one x.qcow2
serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-exports=all \
      qcow2ext-direct=true
"$PYTHON" writes.py "$(uri s)" &
writer=$!
# Where one of the two sizes was of another moment: 1 of 180 was refused.
timeout 120 "$PYTHON" -c '
import nbd, sys
for i in range (150):
    h = nbd.NBD ()
    h.connect_uri (sys.argv[1])
    h.pread (512, 0)
    h.shutdown ()
' "nbd+unix:///snapshot:1?socket=$tmp/s.sock" || fail "refused"
: > enough
wait $writer || fail "the writer has failed"
stop s
clean
