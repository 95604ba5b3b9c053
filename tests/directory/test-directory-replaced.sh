#!/usr/bin/env bash
# dir=: an image that is replaced, renamed or deleted while clients use it stays
# what it was for them; it is written to only if it still has its name, and a
# file with two names is open under one of them.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

mkdir store
make ()
{
    qemu-img create -q -f qcow2 "$1" 1M
    qemu-io -c "write -P $2 0 64k" "$1" > out
}
make store/gone 1
make store/changed 2
make store/replaced 3
make store/linked 4
make store/twice 5
ln store/twice store/same
make outside 9

serve_log s --filter="$qcow2ext" file dir=store qcow2ext-exports=all
cat > clients.py <<'END'
import nbd, os, shutil, sys
def connect (name):
    h = nbd.NBD ()
    h.connect_uri ("nbd+unix:///%s?socket=%s" % (name, sys.argv[1]))
    return h
def refused (f, *args):
    try:
        f (*args)
    except nbd.Error:
        return
    sys.exit ("should have been refused: %s" % (args,))
def has (h, byte):
    assert h.pread (4096, 0) == bytes ([byte]) * 4096
names = ["gone", "changed", "replaced", "linked"]
gone, changed, replaced, linked = map (connect, names)
changed.pwrite (b"\6" * 4096, 65536)            # proven before it is replaced
outside = open ("outside", "rb").read ()
os.unlink ("store/gone")
for name in "changed", "replaced":
    shutil.copy ("outside", name)
    os.rename (name, "store/" + name)
os.rename ("store/linked", "linked")
os.symlink ("../outside", "store/linked")
# As they were.
for h, byte in zip ((gone, changed, replaced, linked), (1, 2, 3, 4)):
    has (h, byte)
# A client that comes now joins them; another export of what is there now is
# refused.
has (connect ("changed"), 2)
has (connect ("gone"), 1)
refused (connect, "changed/bitmap:x")
# The first change of what has no name any more would not be seen by anybody.
for h in gone, replaced, linked:
    refused (h.pwrite, b"\7" * 4096, 0)
changed.pwrite (b"\7" * 4096, 0)
changed.flush ()
has (changed, 7)
for h in gone, changed, replaced, linked:
    h.shutdown ()
assert open ("outside", "rb").read () == outside
for name in "changed", "replaced":
    assert open ("store/" + name, "rb").read () == outside
# The next ones see what is there then.
has (connect ("changed"), 9)
refused (connect, "gone")
refused (connect, "linked")
# One file, two names.
twice = connect ("twice")
refused (connect, "same")
twice.pwrite (b"\3" * 4096, 0)
has (connect ("twice"), 3)
twice.shutdown ()
END
run ()
{
    timeout 120 "$PYTHON" clients.py "$tmp/s.sock" || { cat s.log; fail "a client did not get what it should"; }
}
run
stop s
grep 'replaced: the image has been renamed, removed or replaced' s.log
grep 'changed: the image has been replaced while clients use' s.log
grep 'same: the same file is open as .*store/twice' s.log

# Two names are no more without locks.
serve s --filter="$qcow2ext" file dir=store qcow2ext-lock=false
nbdsh -c "
h.connect_uri ('nbd+unix:///same?socket=$tmp/s.sock')
try:
    g = nbd.NBD ()
    g.connect_uri ('nbd+unix:///twice?socket=$tmp/s.sock')
except nbd.Error:
    pass
else:
    raise SystemExit ('one file is open under two names')
h.shutdown ()
g = nbd.NBD ()
g.connect_uri ('nbd+unix:///twice?socket=$tmp/s.sock')
assert g.pread (1, 0) == b'\\3'
"
