#!/usr/bin/env bash
# dir=: an image that is damaged, in use elsewhere, encrypted, or has lost
# changes concerns nobody but its own clients.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires qemu-io --version
requires_nbd_module
cd "$tmp"

mkdir store
for name in good lost busy closed; do
    qemu-img create -q -f qcow2 "store/$name" 4M
done
mkimage store/bad --data 0=1
truncate -s 200 store/bad
make_luks qemu-img create -q -f qcow2 --object secret,id=s,data=open \
          -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 \
          store/closed 4M

# Somebody else's, for the time of the test.
mkfifo stdin
qemu-io store/busy < stdin > qemu-io.out &
qemu=$!
cleanup_fn kill $qemu
exec 9> stdin
echo 'write 0 4k' >&9
wait_until "qemu-io has the image" grep -q wrote qemu-io.out

cat > clients.py <<'END'
import nbd, sys
def connect (name):
    h = nbd.NBD ()
    h.connect_uri ("nbd+unix:///%s?socket=%s" % (name, sys.argv[1]))
    return h
def fails (f, *args):
    try:
        f (*args)
    except nbd.Error:
        return
    sys.exit ("should have failed: %s" % (args,))
good = connect ("good")
good.pwrite (b"1" * 65536, 0)
for name in "bad", "busy", "closed":
    fails (connect, name)
lost = connect ("lost")
lost.pwrite (b"1" * 65536, 0)
lost.flush ()
lost.pwrite (b"2" * 4096, 1 << 20)
open (sys.argv[2], "w").write ("fdatasync lost 0 5\n")
fails (lost.flush)
lost.shutdown ()
# The others are not concerned, while it fails and afterwards.
good.pwrite (b"2" * 65536, 65536)
good.flush ()
good.shutdown ()
import os
os.unlink (sys.argv[2])
good = connect ("good")
good.pwrite (b"3" * 65536, 131072)
good.flush ()
assert good.pread (65536, 65536) == b"2" * 65536
lost = connect ("lost")
assert lost.is_read_only ()
fails (lost.flush)
assert lost.pread (4096, 0) == b"1" * 4096
lost.shutdown ()
# Nor under another name.
os.rename ("store/lost", "store/moved")
lost = connect ("moved")
assert lost.is_read_only ()
fails (lost.flush)
os.rename ("store/moved", "store/lost")
h = nbd.NBD ()
h.set_opt_mode (True)
h.connect_unix (sys.argv[1])
names = []
h.opt_list (lambda name, description: names.append (name) and 0)
h.opt_abort ()
assert sorted (names) == ["bad", "busy", "closed", "good", "lost"], names
END

export FAIL_IO=$tmp/control
serve_preloaded fail-io s --filter="$qcow2ext" file dir=store
timeout 300 "$PYTHON" clients.py "$tmp/s.sock" "$FAIL_IO"
stop s
qemu-img check store/good
# What was lost may have leaked clusters.
qemu-img check store/lost || [ $? -eq 3 ]
exec 9>&-
wait $qemu
serve s --filter="$qcow2ext" file dir=store
nbdinfo "nbd+unix:///busy?socket=$tmp/s.sock"
stop s
